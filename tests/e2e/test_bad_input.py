"""Every broken input gives one sentence that names it, in little time and memory, and leaves no files."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.cli.main import main
from latentsync.errors import LatentSyncError
from tests.support.broken_landmarks import LANDMARKS
from tests.support.broken_media import SOUNDS, VIDEOS
from tests.support.broken_values import DETECTOR, NAMES, PICTURES, VALUES
from tests.support.broken_weights import NETWORKS, PROOF, WEIGHTS
from tests.support.scene import Attack, Misuse, Scene

ATTACKS = [*VIDEOS, *SOUNDS, *LANDMARKS, *WEIGHTS, *VALUES, *NAMES]
MISUSES = [*NETWORKS, *PICTURES]
LONGEST_SECONDS = 60.0  # the slowest took 7, on a busy machine; what hangs, hangs for ever
MOST_MEMORY_MB = 400.0  # above what was there before: the libraries that a case is the first to need, and a clip
MOST_GROWTH_MB = 1200.0  # of the whole table: torch, diffusers, MediaPipe and their pages, no clip


class Watch:
    """Measures the time and the peak of memory above what was in use before."""

    def __enter__(self) -> Watch:
        self._before = reset_peak()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.memory_mb = peak() - self._before

    def check(self) -> None:
        assert self.seconds < LONGEST_SECONDS
        assert self.memory_mb < MOST_MEMORY_MB


def reset_peak() -> float:
    """Reset the peak of resident memory; returns the memory in use, in MB."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> float:
    """The peak of resident memory since the reset, in MB; 0 on systems that do not report it."""
    if sys.platform != "linux":
        return 0.0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def told(attack: Attack, scene: Scene, capsys: pytest.CaptureFixture[str]) -> str:
    """Run one attack; returns the sentence that the user reads."""
    if attack.needs and not Path(attack.needs).exists():
        pytest.skip(f"needs {attack.needs}")
    arguments = attack.arguments(scene)
    before = sorted(scene.folder.rglob("*"))
    with Watch() as watch:
        status = main(arguments)
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("latentsync: ")]
    watch.check()
    assert status == attack.status, said
    assert "Traceback" not in said
    assert sorted(scene.folder.rglob("*")) == before, "something was left behind, or code was run"
    assert not (scene.folder / PROOF).exists()
    return line.removeprefix("latentsync: ")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.case)
def test_bad_input_is_reported_by_command_line(
    attack: Attack, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    line = told(attack, scene, capsys)
    assert re.search(attack.said, line), line


@pytest.mark.parametrize("attack", DETECTOR, ids=lambda attack: attack.case)
def test_bad_detector_setting_is_reported(
    attack: Attack, shared: Path, scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene.folder / "latentsync").mkdir()
    (scene.folder / "latentsync" / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    arguments = [
        each for each in attack.arguments(scene) if each not in ("--face-landmarks", str(scene.good.landmarks))
    ]
    finding = Attack(attack.case, lambda _: [*arguments, "--models", str(scene.folder)], attack.said, attack.status)
    line = told(finding, scene, capsys)
    assert re.search(attack.said, line), line


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: misuse.case)
def test_bad_input_is_reported_by_library(misuse: Misuse, scene: Scene) -> None:
    with Watch() as watch, pytest.raises(LatentSyncError) as caught:
        misuse.call(scene)
    watch.check()
    line = str(caught.value).partition("\n")[0]
    assert re.search(misuse.said, line), line


@pytest.fixture(scope="module", autouse=True)
def memory_of_all_cases() -> Iterator[None]:
    """All cases in one process grow it by no more than the libraries that they load."""
    before = reset_peak()
    yield
    assert reset_peak() - before < MOST_GROWTH_MB


def test_bad_input_cases_have_unique_names() -> None:
    cases = [case.case for case in (*ATTACKS, *DETECTOR, *MISUSES)]
    assert len(set(cases)) == len(cases)
