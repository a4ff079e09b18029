"""Real clips: every frame is read exactly and has one person in it, and a run changes only the face."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.faces.detection import FaceDetector
from latentsync.video.video_file import VideoFile
from tests.support.real_clips import check_one_person, check_run


def test_real_clip_has_one_person_in_every_frame(shared: Path, detector: FaceDetector) -> None:
    check_one_person(shared, detector, "demo1", small=True)


def test_run_on_real_clip_changes_only_the_face(shared: Path, tmp_path: Path) -> None:
    check_run(shared, tmp_path, "demo1", 1.0, trim=True)


@pytest.mark.parametrize(("name", "count", "rate"), [("demo1", 250, 25), ("demo2", 502, 25), ("demo3", 600, 30)])
def test_video_file_real_clips_are_exact(shared: Path, name: str, count: int, rate: int) -> None:
    path = shared / "media" / f"{name}_video.mp4"
    video = VideoFile(path)
    assert (video.frame_count, video.rate, video.duration_seconds) == (count, rate, Fraction(count, rate))
    wanted = [count - 1, count - 2, count // 2, 7, 3, 0, 40]
    plain: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                plain[i] = frame.to_ndarray(format="rgb24")
    for i, picture in zip(wanted, video.read(wanted), strict=True):
        np.testing.assert_array_equal(picture, plain[i])
