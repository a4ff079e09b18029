"""A clip in memory, for tests that need frames but no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from latentsync.faces.mediapipe_detector import LEFT_BROW, MESH_POINTS, NOSE, RIGHT_BROW
from latentsync.video.color import BT709, ColorSpace
from latentsync.video.video_file import VideoFile


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (N, H, W, 3) at 25 fps."""

    frames: np.ndarray
    name: str = "clip"
    rate: Fraction = Fraction(25)
    color: ColorSpace = BT709
    pixel_aspect: Fraction = Fraction(1)
    has_alpha: bool = False

    @property
    def identity(self) -> int:
        return id(self.frames)

    @property
    def frame_count(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        return self.frames.shape[2]

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def index_at(self, seconds: Fraction) -> int:
        return min(int(seconds * self.rate), self.frame_count - 1)

    def time_of(self, index: int) -> Fraction:
        return index / self.rate

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        return (self.frames[index] for index in indices)


def black(count: int, height: int = 100, width: int = 200) -> Clip:
    return Clip(np.zeros((count, height, width, 3), np.uint8))


def still(count: int, height: int = 100, width: int = 200) -> Clip:
    """The same noise in every frame: each part of the picture has an appearance of its own."""
    frame = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    return Clip(np.repeat(frame[None], count, axis=0))


def decoded(path: Path, count: int) -> np.ndarray:
    """The first frames of a video: uint8 (count, H, W, 3)."""
    return np.stack(list(VideoFile(path).read(range(count))))


def drawn_mesh(x: float, y: float, side: float) -> np.ndarray:
    """A face mesh (468, 2) whose box is a square at x, y, with eyebrows and nose at known places of the box."""
    mesh = np.tile([[x, y], [x + side, y + side]], (MESH_POINTS // 2, 1))
    for group, (across, down) in ((LEFT_BROW, (0.25, 0.25)), (RIGHT_BROW, (0.75, 0.25)), (NOSE, (0.5, 0.75))):
        mesh[list(group)] = x + across * side, y + down * side
    return mesh
