"""Real clips: every frame is read exactly, and has one person in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.video.video_file import VideoFile
from tests.support.heads import found


class Quarter:
    """A video that is scaled down while it is read."""

    def __init__(self, whole: VideoFile) -> None:
        self.whole = whole
        self.name, self.rate, self.frame_count = whole.name, whole.rate, whole.frame_count
        self.height, self.width = whole.height // 4, whole.width // 4

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        for frame in self.whole.read(indices):
            yield cv2.resize(frame, (self.width, self.height), interpolation=cv2.INTER_AREA)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "count", "small"),
    [("demo1", 250, False), ("demo1", 250, True), ("demo2", 502, True), ("demo3", 600, True)],
)
def test_real_clips_have_one_person_in_every_frame(
    shared: Path, detector: MediaPipeDetector, clip: str, count: int, small: bool
) -> None:
    whole = VideoFile(shared / f"media/{clip}_video.mp4")
    people = found(Quarter(whole) if small else whole, detector)
    assert [person.frames.tolist() for person in people.persons] == [list(range(count))]
    assert people.cuts == ()


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
