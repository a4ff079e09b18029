"""Face crops for SyncNet, cut out in the same way as in its official pipeline (joonson/syncnet_python)."""

from __future__ import annotations

import numpy as np

from ..faces.warp import opencv
from ..models.syncnet import SIDE_PX
from ..video.color import to_uint8

TOP_GROWTH = 0.2
"""Extra height at the top of a box, as a share of its height. The boxes of SyncNet's detector (S3FD) begin at the
hairline, and MediaPipe's mesh begins on the forehead. Chosen by eye on three clips. The crop ends below the chin."""

SMOOTHING_FRAMES = 13  # length of the median filter over the boxes
MARGIN = 0.4  # share of the longer side: once on the left and the right, twice below
BORDER_GRAY = 110  # crop pixels outside the frame


def squares(boxes: np.ndarray) -> np.ndarray:
    """Half side and center of each crop, median filtered over consecutive frames.

    Args:
        boxes: (n, 4), pixels: x0, y0, x1, y1 of consecutive frames.

    Returns:
        float64 (n, 3): half of the box's longer side, center x, center y.
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).T
    y0 = y0 - TOP_GROWTH * (y1 - y0)
    half = np.maximum(y1 - y0, x1 - x0) / 2
    places = (half, (x0 + x1) / 2, (y0 + y1) / 2)
    return np.stack([median_filter(series, SMOOTHING_FRAMES) for series in places], axis=1)


def median_filter(series: np.ndarray, length: int) -> np.ndarray:
    """Running median of an odd length over a series (n,). Zeros pad both ends, as in the official code."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(series, length // 2), length)
    return np.asarray(np.median(windows, axis=-1))


def cut(frame: np.ndarray, square: np.ndarray) -> np.ndarray:
    """The crop of one frame (H, W, 3) with square pixels: uint8 (224, 224, 3) in the order B, G, R.

    The face is in the upper middle, and the crop contains the whole chin.
    """
    half, x, y = square.tolist()
    padding = int(half * (1 + 2 * MARGIN))
    top, bottom = (int(y + padding + half * reach) - padding for reach in (-1, 1 + 2 * MARGIN))
    left, right = (int(x + padding + half * reach) - padding for reach in (-1 - MARGIN, 1 + MARGIN))
    rows, columns = slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))
    crop = np.full((max(bottom - top, 1), max(right - left, 1), 3), BORDER_GRAY, np.uint8)
    visible = to_uint8(frame[rows, columns])
    if visible.size:
        at_y, at_x = rows.start - top, columns.start - left
        crop[at_y : at_y + visible.shape[0], at_x : at_x + visible.shape[1]] = visible
    cv2 = opencv()
    return cv2.resize(crop[..., ::-1], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
