"""Every broken input gets one sentence that names it, soon and in little memory, and nothing is left behind."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.cli.main import main
from latentsync.errors import LatentSyncError
from tests.faults.broken_landmarks import LANDMARKS
from tests.faults.broken_media import SOUNDS, VIDEOS
from tests.faults.broken_values import DETECTOR, NAMES, PICTURES, VALUES
from tests.faults.broken_weights import NETWORKS, PROOF, WEIGHTS
from tests.faults.cases import Attack, Misuse, Scene
from tests.witness import Witness, read_rows

ATTACKS = [*VIDEOS, *SOUNDS, *LANDMARKS, *WEIGHTS, *VALUES, *NAMES]
MISUSES = [*NETWORKS, *PICTURES]
LONGEST_SECONDS = 60.0  # the slowest took 7, on a busy machine; what hangs, hangs for ever
MOST_MEMORY_MB = 400.0  # above what was there before: the libraries that a case is the first to need, and a clip
MOST_GROWTH_MB = 1200.0  # of the whole table: torch, diffusers, MediaPipe and their pages, no clip
RELIABILITY = Path(__file__).parents[2] / "docs" / "reliability.md"


class Watch:
    """How long something took, and how much memory at its height, above what there was before; of all, the most."""

    longest_seconds = most_memory_mb = 0.0

    def __enter__(self) -> Watch:
        self._before = reset_peak()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.memory_mb = peak() - self._before

    def check(self) -> None:
        Watch.longest_seconds = max(self.seconds, Watch.longest_seconds)
        Watch.most_memory_mb = max(self.memory_mb, Watch.most_memory_mb)
        assert self.seconds < LONGEST_SECONDS
        assert self.memory_mb < MOST_MEMORY_MB


def reset_peak() -> float:
    """Forget the highest resident memory so far; the present one, in MB."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> float:
    """The highest resident memory since it was reset, in MB; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0.0
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def told(attack: Attack, scene: Scene, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that the user reads; run after everything that the attack needs is made."""
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
def test_the_command_line_says_what_is_wrong(
    attack: Attack, scene: Scene, capsys: pytest.CaptureFixture[str], witness: Witness
) -> None:
    line = told(attack, scene, capsys)
    assert re.search(attack.said, line), line
    witness.saw("Bad input", attack.case, attack.door, f"`{line.replace(f'{scene.folder}/', '')}`")


@pytest.mark.parametrize("attack", DETECTOR, ids=lambda attack: attack.case)
def test_a_detector_that_cannot_be(
    attack: Attack, shared: Path, scene: Scene, capsys: pytest.CaptureFixture[str], witness: Witness
) -> None:
    (scene.folder / "latentsync").mkdir()
    (scene.folder / "latentsync" / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    arguments = [each for each in attack.arguments(scene) if each not in ("--landmarks", str(scene.good.landmarks))]
    finding = Attack(attack.case, lambda _: [*arguments, "--models", str(scene.folder)], attack.said, attack.status)
    line = told(finding, scene, capsys)
    assert re.search(attack.said, line), line
    witness.saw("Bad input", attack.case, attack.door, f"`{line}`")


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: misuse.case)
def test_the_library_says_what_is_wrong(misuse: Misuse, scene: Scene, witness: Witness) -> None:
    with Watch() as watch, pytest.raises(LatentSyncError) as caught:
        misuse.call(scene)
    watch.check()
    line = str(caught.value).partition("\n")[0]
    assert re.search(misuse.said, line), line
    witness.saw("Bad input", misuse.case, misuse.door, f"`{line.replace(f'{scene.folder}/', '')}`")


@pytest.fixture(scope="module", autouse=True)
def of_all_together(witness: Witness) -> Iterator[None]:
    """The whole table, one case after the other in one process, grows by no more than the libraries it loads."""
    before = reset_peak()
    yield
    grown = reset_peak() - before
    assert grown < MOST_GROWTH_MB
    if not {case.case for case in (*ATTACKS, *DETECTOR, *MISUSES)} <= {row.case for row in witness.rows}:
        return  # some did not run
    said = (
        f"slowest {Watch.longest_seconds:.1f} s; most memory of one {Watch.most_memory_mb:.0f} MB above what was there "
    )
    said += f"before; the process grew by {grown:.0f} MB from the first to the last, its libraries among it"
    witness.saw("Bad input", "all of these, one after the other", "one process", said)


def test_the_document_has_a_row_for_every_case(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--faults"):
        pytest.skip("this run writes the document")
    written = {row.case for row in read_rows(RELIABILITY.read_text(encoding="utf-8")) if row.part == "Bad input"}
    cases = [case.case for case in (*ATTACKS, *DETECTOR, *MISUSES)]
    assert len(set(cases)) == len(cases) >= 60
    assert set(cases) <= written, "run `make faults`"
