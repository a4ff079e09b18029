"""Alignment points over time, steadied without lag.

A quadratic is fitted to the frames around each frame, as many before as after (A. Savitzky, M. Golay, 1964): noise
averages out, while a head that moves, turns or slows is where it is, not where it was.
"""

from __future__ import annotations

import numpy as np

HALF_WINDOW_FRAMES = 4
DEGREE = 2


def zero_lag(points: np.ndarray) -> np.ndarray:
    """Points (n, ...) of consecutive frames, steadied: the same shape.

    The ends take the curves of the first and the last window; runs of up to three frames are left as they are.
    """
    count = len(points)
    width = min(2 * HALF_WINDOW_FRAMES + 1, count - 1 + count % 2)
    if width <= DEGREE + 1:
        return points
    half, hat = width // 2, _hat(width)
    flat = points.reshape(count, -1)
    around = np.lib.stride_tricks.sliding_window_view(flat, width, axis=0)
    steady = np.concatenate([hat[:half] @ flat[:width], around @ hat[half], hat[-half:] @ flat[-width:]])
    return steady.reshape(points.shape)


def _hat(width: int) -> np.ndarray:
    """(width, width): from values to those of the quadratic through them."""
    powers = np.vander(np.arange(width) - width // 2, DEGREE + 1)
    return powers @ np.linalg.pinv(powers)
