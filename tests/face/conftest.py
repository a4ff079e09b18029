"""MediaPipe's detector, opened once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.face.detect import FaceDetector


@pytest.fixture(scope="session")
def detector(shared: Path) -> Iterator[FaceDetector]:
    with FaceDetector(shared / "models/face_landmarker.task") as opened:
        yield opened
