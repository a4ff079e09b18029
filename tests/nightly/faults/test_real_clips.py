"""Face detection, scores and whole runs on real clips, from the first to the last frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from latentsync.faces.mediapipe_detector import MediaPipeDetector
from tests.support.real_clips import check_one_person, check_run, check_score


@pytest.mark.parametrize(("clip", "small"), [("demo1", False), ("demo2", True), ("demo3", True)])
def test_real_clip_has_one_person_in_every_frame(
    shared: Path, detector: MediaPipeDetector, clip: str, small: bool
) -> None:
    check_one_person(shared, detector, clip, small)


@pytest.mark.parametrize(("clip", "seconds"), [("demo1", 9.6), ("demo3", 18.56)])
def test_run_on_real_clip_changes_only_the_face(shared: Path, tmp_path: Path, clip: str, seconds: float) -> None:
    check_run(shared, tmp_path, clip, seconds)


def test_score_of_real_clip_whose_sound_ends_first(shared: Path, tmp_path: Path) -> None:
    """The sound ends after 20.039 s. Of the 502 frames, 500 have sound."""
    check_score(shared, tmp_path, "demo2", 500)
