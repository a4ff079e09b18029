"""What every test may ask for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.faces.mediapipe_detector import MediaPipeDetector
from tests.witness import Witness

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
RELIABILITY = REPOSITORY / "docs" / "reliability.md"
WITNESS = pytest.StashKey[Witness]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make faults` runs what takes minutes, too, and writes down what happened."""
    parser.addoption("--faults", action="store_true", help=f"run every attack and write {RELIABILITY.name}")


def pytest_configure(config: pytest.Config) -> None:
    """Whoever attacks tells one witness; what is interrupted by a test takes notice.

    A shell has its background jobs ignore Ctrl-C, and what they start inherits that.
    """
    config.stash[WITNESS] = Witness()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what lives in tests/comfyui, so that `-m "not comfyui"` leaves the real ComfyUI out; leave out what is
    for `make faults` alone."""
    for item in items:
        if item.path.is_relative_to(REPOSITORY / "tests" / "comfyui"):
            item.add_marker(pytest.mark.comfyui)
    if not config.getoption("--faults"):
        left_out = [item for item in items if item.get_closest_marker("faults")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table."""
    if session.config.getoption("--faults"):
        session.config.stash[WITNESS].write(RELIABILITY)


@pytest.fixture(scope="session")
def witness(request: pytest.FixtureRequest) -> Witness:
    """To be told what happened."""
    return request.config.stash[WITNESS]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real footage, MediaPipe's model and recorded results, which lie beside the repository where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED.name}/ (real footage and recorded results) beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def detector(shared: Path) -> Iterator[MediaPipeDetector]:
    """MediaPipe's detector, opened once."""
    with MediaPipeDetector(shared / "models/face_landmarker.task") as opened:
        yield opened
