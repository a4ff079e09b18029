"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.face.detect import FaceDetector

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lives in tests/comfyui, so that `-m "not comfyui"` leaves the real ComfyUI out.

    It is also one group, for it shares a server: tests that run side by side share no more than their file.
    """
    for item in items:
        in_comfyui = item.path.is_relative_to(REPOSITORY / "tests" / "comfyui")
        item.add_marker(pytest.mark.xdist_group("comfyui" if in_comfyui else str(item.path)))
        if in_comfyui:
            item.add_marker(pytest.mark.comfyui)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real footage, MediaPipe's model and recorded results, which lie beside the repository where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED.name}/ (real footage and recorded results) beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def detector(shared: Path) -> Iterator[FaceDetector]:
    """MediaPipe's detector, opened once."""
    with FaceDetector(shared / "models/face_landmarker.task") as opened:
        yield opened
