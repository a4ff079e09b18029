"""Runs that are killed at random moments, cancelled in every stage, or find a full disk at every size."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter

import pytest

from tests.support.cli_process import (
    AFTER,
    BEFORE,
    STAGES,
    await_stage,
    begun,
    check_after_a_kill,
    check_no_room,
    record_of,
)
from tests.support.scene import Scene

KILLS = 50

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process in one way only")


def whole_run_seconds(scene: Scene) -> float:
    began = time.monotonic()
    with begun(scene) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    for path in (scene.output, scene.output.with_suffix(".json")):
        path.unlink()
    return time.monotonic() - began


def killed(scene: Scene, after_seconds: float) -> str:
    """Start a run and kill it after this time; returns its stage."""
    with begun(scene) as process:
        try:
            process.wait(after_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        said = process.communicate()[1].decode(errors="replace")
    if process.returncode == 0:
        return AFTER
    shown = [stage for stage in STAGES if f"{stage}:" in said]
    return shown[-1] if shown else BEFORE


def kill_at_random(scene: Scene, times: int) -> tuple[Counter[str], Counter[str]]:
    """The stages in which runs were killed, and the outcomes in their records."""
    choice, longest = random.Random(times), whole_run_seconds(scene)
    stages: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for _ in range(times):
        stage = killed(scene, choice.uniform(0.2, 1.0) * longest)
        stages[stage] += 1
        outcomes[check_after_a_kill(scene, stage)] += 1
        for path in scene.folder.iterdir():
            path.unlink()
    return stages, outcomes


def test_kill_at_random_moments_leaves_no_half_file(scene: Scene) -> None:
    stages, _ = kill_at_random(scene, KILLS)
    assert len(stages) > 1, "all kills fell into one stage"


@pytest.mark.parametrize("stage", STAGES)
def test_cancel_in_every_stage_leaves_only_record(scene: Scene, stage: str) -> None:
    with begun(scene, "--steps", 20) as process:
        await_stage(process, stage)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 1
    assert b"latentsync: Cancelled." in said
    assert b"Traceback" not in said
    assert [path.name for path in scene.folder.iterdir()] == ["out.json"]
    assert record_of(scene.folder / "out.json")["outcome"] == "cancelled"


@pytest.mark.parametrize("room_bytes", [0, 100, 20_000, 40_000, 60_000])
def test_full_disk_at_any_size_is_one_sentence(scene: Scene, room_bytes: int) -> None:
    check_no_room(scene, room_bytes)
