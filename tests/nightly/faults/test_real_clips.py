"""Face detection and whole runs on every real clip, from the first to the last frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentsync.faces.mediapipe_detector import MediaPipeDetector
from tests.support.real_clips import check_one_person, check_run


@pytest.mark.parametrize(("clip", "small"), [("demo1", False), ("demo1", True), ("demo2", True)])
def test_real_clip_has_one_person_in_every_frame(
    shared: Path, detector: MediaPipeDetector, clip: str, small: bool
) -> None:
    check_one_person(shared, detector, clip, small)


@pytest.mark.parametrize(("clip", "seconds"), [("demo1", 9.6), ("demo3", 18.56)])
def test_run_on_real_clip_changes_only_the_face(shared: Path, tmp_path: Path, clip: str, seconds: float) -> None:
    check_run(shared, tmp_path, clip, seconds)
