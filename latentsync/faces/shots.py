"""Shot boundary detection on thumbnails of the frames."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..video.color import max_value

THUMBNAIL_PX = 8
MAX_SAMPLES = 16  # rows and columns of the frame that are averaged for one pixel of the thumbnail

CUT_LEVELS = 12.0  # least mean difference of the two thumbnails at a cut, in levels of 255
CUT_RATIO = 4.0  # difference at a cut / median difference around it. Camera shake and fades change all frames alike
NEIGHBOR_FRAMES = 6  # on each side of a cut, for that median

FLASH_FRAMES = 12  # longest flash, run of black frames or covered camera that is not a shot of its own
FLAT_LEVELS = 8.0  # largest standard deviation within a flat thumbnail (black, white)
COVERED_SHARE = 0.25  # least share of unchanged pixels when something covers a part of the camera


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """float32 (8, 8, 3) in 0..255: local means of a frame (H, W, 3), uint8, uint16 or float32 in [0, 1]."""
    rows, columns = (_sample_grid(side) for side in frame.shape[:2])
    samples = frame[np.ix_(rows.ravel(), columns.ravel())].astype(np.float32)
    means = samples.reshape(*rows.shape, *columns.shape, 3).mean(axis=(1, 3))
    return means * np.float32(255 / max_value(frame))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two thumbnails, in levels of 255."""
    return float(np.abs(np.subtract(a, b, dtype=np.float32)).mean())


def detect_cuts(thumbnails: np.ndarray) -> tuple[int, ...]:
    """The first frame of every shot, except the first shot.

    Args:
        thumbnails: (frames, 8, 8, 3), uint8 or float32. One hour at 25 fps in uint8 needs 17 MB.
    """
    steps = np.fromiter((difference(a, b) for a, b in pairwise(thumbnails)), np.float64)
    jumps: list[int] = []
    for i in np.flatnonzero(steps >= CUT_LEVELS).tolist():
        neighbors = np.concatenate([steps[max(i - NEIGHBOR_FRAMES, 0) : i], steps[i + 1 : i + 1 + NEIGHBOR_FRAMES]])
        if len(neighbors) == 0 or steps[i] >= CUT_RATIO * float(np.median(neighbors)):
            jumps.append(i + 1)
    cuts: list[int] = []
    resume = 0
    for jump in jumps:
        if jump >= resume:
            end = _end_of_interruption(thumbnails, jump, jumps)
            if end is None:
                cuts.append(jump)
            else:
                resume = end + 1
    return tuple(cuts)


def _end_of_interruption(thumbnails: np.ndarray, jump: int, jumps: list[int]) -> int | None:
    """The later jump that returns to the image before `jump`, after a flash, black frames or a covered camera."""
    before = thumbnails[jump - 1]
    max_difference = difference(thumbnails[jump], before) / 2
    for end in jumps:
        if jump < end <= jump + FLASH_FRAMES and difference(thumbnails[end], before) < max_difference:
            between = thumbnails[jump:end]
            flat = float(between.std(axis=(1, 2), dtype=np.float32).max()) < FLAT_LEVELS
            unchanged = np.abs(np.subtract(between, before, dtype=np.float32)).mean(axis=-1) < CUT_LEVELS / 2
            if flat or float(unchanged.mean(axis=(1, 2)).min()) >= COVERED_SHARE:
                return end
    return None


def _sample_grid(side: int) -> np.ndarray:
    """int (8, n): the rows (or columns) of the frame that each pixel of the thumbnail averages."""
    edges = np.linspace(0, side, THUMBNAIL_PX + 1)
    samples = min(max(side // THUMBNAIL_PX, 1), MAX_SAMPLES)
    return np.stack([np.linspace(start, stop, samples, endpoint=False).astype(int) for start, stop in pairwise(edges)])
