"""Registry of face detectors. To add a detector, write one file and add one line to `DETECTORS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import check_choice
from ..weights.catalog import FACE_LANDMARKER, WeightFile
from .detection import DEFAULT_MIN_CONFIDENCE, FaceDetector
from .mediapipe_detector import MediaPipeDetector

Locate = Callable[[WeightFile], Path]
"""Finds a model file on the disk, or raises WeightsError."""

DETECTORS: dict[str, Callable[[Locate, float], FaceDetector]] = {
    "mediapipe": lambda locate, min_confidence: MediaPipeDetector(locate(FACE_LANDMARKER), min_confidence),
}
"""Name of a detector -> function of (locate, min_confidence) that opens it."""

DEFAULT_DETECTOR = "mediapipe"


def open_detector(
    locate: Locate, min_confidence: float = DEFAULT_MIN_CONFIDENCE, name: str = DEFAULT_DETECTOR
) -> FaceDetector:
    """Open a face detector. Close the detector after use, or use the detector as a context manager.

    Args:
        locate: finds the detector's model files.
        min_confidence: above 0, at most 1. Lower values find more faces, and more objects that are not faces.
        name: a key of `DETECTORS`.

    Raises:
        UsageError: the name is unknown, or the confidence is out of range.
        WeightsError: a model file is missing or unreadable.
        DependencyError: the detector's library is not installed.
    """
    check_choice("detector", name, tuple(DETECTORS))
    return DETECTORS[name](locate, min_confidence)
