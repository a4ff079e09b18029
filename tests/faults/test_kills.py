"""However a run ends, no half file has a final name, and the next run finds nothing in its way and leaves nothing."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jsonschema
import pytest

from latentsync.cli.main import main
from latentsync.video.video_file import VideoFile
from tests.faults.cases import COMMAND_LINE, Scene
from tests.witness import Witness

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((REPOSITORY / "docs" / "record.schema.json").read_text(encoding="utf-8"))
KILLS = 50
STAGES = ("faces", "audio", "lips", "video")
BEFORE, AFTER = "before its stages", "after its end"

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process in one way only")


def begun(scene: Scene, *more: object) -> subprocess.Popen[bytes]:
    """The command line at work in a process of its own, on a clip that keeps every stage busy."""
    command = [sys.executable, "-m", "latentsync", *scene.run("--record", *more)]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def whole_run_seconds(scene: Scene) -> float:
    began = time.monotonic()
    with begun(scene) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    for path in (scene.output, scene.output.with_suffix(".json")):
        path.unlink()
    return time.monotonic() - began


def killed(scene: Scene, after_seconds: float) -> str:
    """Kill a run that long after its start; returns the stage it was in."""
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


def record_of(path: Path) -> dict[str, object]:
    record = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    return record


def check_after_a_kill(scene: Scene, stage: str) -> str:
    """What a killed run left, and what the next one makes of it; returns what the record of the killed one said."""
    if scene.output.exists() and scene.output.stat().st_size:  # an empty file is a reserved name
        assert VideoFile(scene.output).frame_count == 15, "under its name only when whole"
    record = scene.output.with_suffix(".json")
    outcome = str(record_of(record)["outcome"]) if record.exists() else "none"
    assert outcome in {BEFORE: ("none", "unfinished"), AFTER: ("done",)}.get(stage, ("unfinished", "done"))
    shown = [path.name for path in scene.folder.iterdir() if not path.name.startswith(".")]
    assert set(shown) <= {"out.mp4", "out.json"}
    assert main(scene.run("--record")) == 0
    assert VideoFile(scene.output).frame_count == 15
    assert sorted(path.name for path in scene.folder.iterdir()) == ["out.json", "out.mp4"], "no stray file"
    assert record_of(record)["outcome"] == "done"
    return outcome


def await_stage(process: subprocess.Popen[bytes], stage: str) -> None:
    """Read on until a run shows a stage's bar."""
    assert process.stderr is not None
    said = b""
    while f"{stage}:".encode() not in said:
        piece = process.stderr.read1(4096)
        assert piece, said
        said += piece


@pytest.mark.parametrize("stage", ["lips", "video"])
def test_killed_in_a_stage(scene: Scene, stage: str, witness: Witness) -> None:
    with begun(scene, "--steps", 20) as process:
        await_stage(process, stage)
        process.kill()
        process.communicate()
    outcome = check_after_a_kill(scene, stage)
    said = f"its record said: {outcome}; no half video under its name; the next run worked and left nothing else"
    witness.saw("Faults", f"kill -9 while it shows '{stage}'", COMMAND_LINE, said)


def kill_at_random(scene: Scene, times: int) -> tuple[Counter[str], Counter[str]]:
    """Stages in which runs were killed, and what their records said."""
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


def counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())


@pytest.mark.faults
def test_killed_at_random_moments(scene: Scene, witness: Witness) -> None:
    stages, outcomes = kill_at_random(scene, KILLS)
    assert len(stages) > 1, "not all fell into one stage"
    missed = stages.pop(AFTER, 0)
    said = (
        f"killed {counted(stages)}, {missed} had ended; their records said: {counted(outcomes)}; no half video under "
    )
    said += "its name; the next run worked and left its video and its record alone"
    witness.saw("Faults", f"kill -9 at {KILLS} random moments", COMMAND_LINE, said)


def test_what_a_killed_run_left_goes_and_what_a_living_one_has_stays(scene: Scene, witness: Witness) -> None:
    """Three names in one folder: a killed run's, a living run's, and somebody's file that only looks like ours."""
    from latentsync.fileio import temp_path
    from latentsync.output.output_path import reserve_path

    with reserve_path([scene.folder / "living.mp4"]):
        living = temp_path(scene.folder / "living.mp4")
        living.touch()
        dead = living.with_name(living.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-1"))  # an earlier process
        dead.touch()
        own = scene.written(".notes.part.txt", "mine")
        with reserve_path([scene.output]):
            assert not dead.exists()
            assert living.exists()
    assert own.exists()
    living.unlink()
    assert [path.name for path in scene.folder.iterdir()] == [own.name]
    witness.saw(
        "Faults",
        "a killed run's leavings beside a living run's",
        "library",
        "the dead's are removed, the living's stay",
    )


def test_two_runs_of_one_output(scene: Scene, capsys: pytest.CaptureFixture[str], witness: Witness) -> None:
    from latentsync.output.output_path import reserve_path

    with reserve_path([scene.output]):
        assert main(scene.run()) == 1
    said = capsys.readouterr().err
    assert "out.mp4: another run is writing this file" in said
    assert main(scene.run()) == 0
    witness.saw(
        "Faults",
        "a second run with the output of one at work",
        COMMAND_LINE,
        "`out.mp4: another run is writing this file`",
    )


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_at_every_stage(scene: Scene, stage: str, witness: Witness) -> None:
    with begun(scene, "--steps", 20) as process:
        await_stage(process, stage)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 1
    assert b"latentsync: cancelled" in said
    assert b"Traceback" not in said
    assert [path.name for path in scene.folder.iterdir()] == ["out.json"]
    assert record_of(scene.folder / "out.json")["outcome"] == "cancelled"
    witness.saw(
        "Faults",
        f"Ctrl-C while it shows '{stage}'",
        COMMAND_LINE,
        "`cancelled`; nothing left but the record, which says so",
    )


def limit_files(to_bytes: int) -> None:
    """Every write beyond so many bytes of a file fails, as on a full disk; run in the child."""
    import resource  # Windows has none

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (to_bytes, to_bytes))


@pytest.mark.parametrize(
    "room_bytes",
    [pytest.param(0, marks=pytest.mark.faults), pytest.param(100, marks=pytest.mark.faults), 5_000]
    + [pytest.param(size, marks=pytest.mark.faults) for size in (20_000, 60_000, 100_000)],
)
def test_no_room_for_a_file_of_the_output(scene: Scene, room_bytes: int, witness: Witness) -> None:
    command = [sys.executable, "-m", "latentsync", *scene.run("--record")]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, check=False, preexec_fn=lambda: limit_files(room_bytes)
    )
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    (line,) = re.findall(r"latentsync: (.*)", said)
    assert "cannot be written" in line
    assert not scene.output.exists()
    left = sorted(path.name for path in scene.folder.iterdir())
    assert left in ([], ["out.json"])
    if left:
        assert record_of(scene.folder / "out.json")["outcome"] in ("failed", "unfinished")
    assert main(scene.run("--record")) == 0
    what = f"no room for more than {room_bytes:,} bytes of any file"
    witness.saw("Faults", what, COMMAND_LINE, f"`{line.replace(f'{scene.folder}/', '')}`; the next run works")


def test_an_output_that_nobody_reads(scene: Scene, witness: Witness) -> None:
    """`... | head` closes the pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "latentsync", *scene.search(scene.good.landmarks)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr
    witness.saw("Faults", "an output that nobody reads", COMMAND_LINE, "no traceback")
