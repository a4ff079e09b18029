"""How often the tracker asks for the slow tiled search, and how soon a small face is found."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync.faces.detection import DetectionHints, FaceDetection, FaceDetector
from latentsync.faces.tracker import track_faces
from tests.support.image_clip import Clip, decoded, still

FACE = FaceDetection((50, 20, 80, 50), 0.9, (58, 30), (72, 30), (65, 40), 0.0)


class SmallFace(FaceDetector):
    """Finds one face in a range of frames, by a tiled search or by tracking, and records the tiled searches."""

    def __init__(self, shown: range) -> None:
        self.shown = shown
        self.tiled: list[int] = []

    def detect(self, frame: np.ndarray, hints: DetectionHints) -> list[FaceDetection]:
        if hints.tiled:
            self.tiled.append(hints.frame_index)
        return [FACE] if hints.frame_index in self.shown and (hints.tiled or hints.tracked) else []


def tracked_frames(clip: Clip, detector: FaceDetector) -> list[int]:
    return [i for i, result in enumerate(track_faces(clip, detector)) if result.faces]


def test_tracker_searches_few_tiles_without_faces() -> None:
    detector = SmallFace(range(0))
    assert tracked_frames(still(300), detector) == []
    assert detector.tiled == [0, 1, 3, 7, 15, 31, 63, 113, 163, 213, 263]


@pytest.mark.parametrize("first", [0, 1, 2, 8, 20, 64, 114])
def test_tracker_finds_small_face_that_appears_later(first: int) -> None:
    frames = tracked_frames(still(200), SmallFace(range(first, 200)))
    assert frames == list(range(frames[0], 200))
    assert frames[0] - first <= min(first, 49)


def test_tracker_finds_small_real_face_that_appears_later(shared: Path, detector: FaceDetector) -> None:
    """A face of 40 pixels, which MediaPipe misses in the whole frame of 960 x 540."""
    first = 8
    scale = 40 / 268
    heads = decoded(shared / "media/demo2_video.mp4", 20)
    clip = Clip(np.full((20, 540, 960, 3), 90, np.uint8))
    for frame, head in list(zip(clip.frames, heads, strict=True))[first:]:
        small = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frame[200 : 200 + small.shape[0], 400 : 400 + small.shape[1]] = small
    assert detector.detect_boxes(clip.frames[-1]) == []
    frames = tracked_frames(clip, detector)
    assert frames == list(range(frames[0], 20))
    assert frames[0] <= 2 * first


def test_tracker_searches_tiles_every_second_while_it_tracks() -> None:
    detector = SmallFace(range(100))
    assert tracked_frames(still(100), detector) == list(range(100))
    assert detector.tiled == [0, 25, 50, 75]


def test_tracker_searches_tiles_again_when_a_face_is_lost() -> None:
    detector = SmallFace(range(40))
    tracked_frames(still(80), detector)
    assert detector.tiled == [0, 25, 47, 48, 50, 54, 62, 78]


def test_tracker_searches_tiles_at_a_cut() -> None:
    clip = still(200)
    clip.frames[150:] //= 4
    detector = SmallFace(range(150, 200))
    assert tracked_frames(clip, detector) == list(range(150, 200))
    assert detector.tiled == [0, 1, 3, 7, 15, 31, 63, 113, 150, 175]


def test_tracker_searches_few_tiles_in_flicker() -> None:
    clip = still(300)
    clip.frames[::2] //= 4
    detector = SmallFace(range(0))
    assert tracked_frames(clip, detector) == []
    assert len(detector.tiled) < 15
