"""One person in every frame of the real clips: of each at a quarter of the size, and of one at full size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.faces.detection import FaceDetector
from latentsync.video.video_file import VideoFile
from tests.support.heads import found


class Quarter:
    """A video made small while it is read."""

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
    shared: Path, detector: FaceDetector, clip: str, count: int, small: bool
) -> None:
    whole = VideoFile(shared / f"media/{clip}_video.mp4")
    identities = found(Quarter(whole) if small else whole, detector)
    assert [identity.frames.tolist() for identity in identities.members] == [list(range(count))]
    assert identities.cuts == ()
