"""The registry: one class with `detect` and one line are a detector."""

from __future__ import annotations

import sys
import weakref
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from latentsync.errors import UsageError
from latentsync.faces.detection import DetectionHints, FaceDetection, FaceDetector
from latentsync.faces.detectors import DEFAULT_DETECTOR, DETECTORS, open_detector
from latentsync.faces.mediapipe_detector import MediaPipeDetector, import_mediapipe
from latentsync.faces.tracker import track_faces
from latentsync.weights.catalog import FACE_LANDMARKER
from tests.support.image_clip import still

FACE = FaceDetection((50, 20, 80, 50), 0.9, (58, 30), (72, 30), (65, 40), 0.0)


class Minimal(FaceDetector):
    """The least that a detector must have."""

    def detect(self, frame: np.ndarray, hints: DetectionHints) -> list[FaceDetection]:
        return [FACE]


def test_detectors_registry_opens_another_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DETECTORS, "minimal", lambda *_: Minimal())
    with open_detector(lambda file: Path(file.name), 0.5, "minimal") as detector:
        results = list(track_faces(still(5), detector))
    assert [[(face.track, face.detection) for face in result.faces] for result in results] == [[(0, FACE)]] * 5


def test_detectors_registry_opens_mediapipe_by_default(shared: Path) -> None:
    assert DEFAULT_DETECTOR in DETECTORS
    with open_detector(lambda file: {FACE_LANDMARKER: shared / "models" / file.name}[file]) as detector:
        assert isinstance(detector, MediaPipeDetector)


def test_detectors_registry_refuses_unknown_name() -> None:
    with pytest.raises(UsageError, match=r'"detector" cannot be .*Choose one of mediapipe'):
        open_detector(lambda file: Path(file.name), 0.5, "none")


def test_import_mediapipe_keeps_no_variable_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MediaPipe keeps the frame of its own import where PortAudio is missing, and a frame keeps its callers."""
    (tmp_path / "mediapipe.py").write_text("import sys\nFRAME = sys._getframe()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "mediapipe", sys)  # the real module, or none, comes back after the test
    del sys.modules["mediapipe"]

    def open_it() -> tuple[ModuleType, weakref.ref[np.ndarray]]:
        images = np.zeros(1)
        return import_mediapipe(), weakref.ref(images)

    module, images = open_it()
    assert module.FRAME is not None
    assert images() is None
