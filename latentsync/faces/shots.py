"""Where a clip is cut: its frames as thumbnails, compared in order."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..video.color import max_value

THUMBNAIL = 8  # pixels each way


STEP = 16  # at most so many rows and columns are averaged for one pixel of it


CUT_LEVELS = 12.0  # mean difference of two thumbnails, in levels of 255, from which the picture may have changed


CUT_RATIO = 4.0  # how much more than its neighbours' a cut's difference is: shaking and fades are even


NEIGHBOURS = 6  # frames on either side that it is compared with


FLASH_FRAMES = 12  # a picture that comes back within so many frames, flat (black, white) or covered, was not cut


FLAT_LEVELS = 8.0  # spread within a flat thumbnail


COVERED_SHARE = 0.25  # of a covered picture that still shows what it showed


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """float32 (8, 8, 3) in 0..255: the means of a frame (H, W, 3), uint8, uint16 or float32 in [0, 1]."""
    rows, columns = (_cells(side) for side in frame.shape[:2])
    cells = frame[np.ix_(rows.ravel(), columns.ravel())].astype(np.float32)
    small = cells.reshape(*rows.shape, *columns.shape, 3).mean(axis=(1, 3))
    return small * np.float32(255 / max_value(frame))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of two thumbnails, in levels of 255."""
    return float(np.abs(np.subtract(a, b, dtype=np.float32)).mean())


def detect_cuts(thumbnails: np.ndarray) -> tuple[int, ...]:
    """Frames that begin a new shot, the first not counted.

    Args:
        thumbnails: (frames, 8, 8, 3), uint8 or float32; of an hour uint8 are 17 MB, and no more is held.
    """
    steps = np.fromiter((difference(a, b) for a, b in pairwise(thumbnails)), np.float64)
    jumps = [i + 1 for i in range(len(steps)) if steps[i] >= CUT_LEVELS and _stands_out(steps, i)]
    found: list[int] = []
    resumed = 0
    for jump in jumps:
        if jump >= resumed:
            returns = _return(thumbnails, jump, jumps)
            if returns is None:
                found.append(jump)
            resumed = returns + 1 if returns is not None else jump
    return tuple(found)


def _stands_out(steps: np.ndarray, i: int) -> bool:
    around = np.concatenate([steps[max(i - NEIGHBOURS, 0) : i], steps[i + 1 : i + 1 + NEIGHBOURS]])
    return len(around) == 0 or steps[i] >= CUT_RATIO * float(np.median(around))


def _return(thumbnails: np.ndarray, jump: int, jumps: list[int]) -> int | None:
    """The later jump at which the picture before `jump` is back, after a flash, black frames or a hand."""
    before = thumbnails[jump - 1]
    back = (later for later in jumps if jump < later <= jump + FLASH_FRAMES)
    back = (later for later in back if _flat(thumbnails[jump:later]) or _covered(thumbnails[jump:later], before))
    least = difference(thumbnails[jump], before) / 2
    return next((later for later in back if difference(thumbnails[later], before) < least), None)


def _flat(thumbnails: np.ndarray) -> bool:
    return float(thumbnails.std(axis=(1, 2), dtype=np.float32).max()) < FLAT_LEVELS


def _covered(thumbnails: np.ndarray, before: np.ndarray) -> bool:
    kept = (np.abs(np.subtract(thumbnails, before, dtype=np.float32)).mean(axis=-1) < CUT_LEVELS / 2).mean(axis=(1, 2))
    return float(kept.min()) >= COVERED_SHARE


def _cells(side: int) -> np.ndarray:
    """int (8, n): the rows (or columns) that each pixel of the thumbnail averages."""
    edges = np.linspace(0, side, THUMBNAIL + 1)
    samples = min(max(side // THUMBNAIL, 1), STEP)
    return np.stack(
        [np.linspace(edges[i], edges[i + 1], samples, endpoint=False).astype(int) for i in range(THUMBNAIL)]
    )
