"""How visible a seam is: the steps that pasting adds between neighboring pixels across the mask's edge."""

from __future__ import annotations

import cv2
import numpy as np

from latentsync.faces.alignment import crop_size, keep_mask

REACH_PX = 3  # on each side of the edge
ROUNDING_PX = 1 / 32  # OpenCV 4 rounds the places of a warp to it


def in_frame(matrix: np.ndarray, frame_size: tuple[int, int], resolution: int) -> np.ndarray:
    """bool (H, W): the model's mask in the frame, and every pixel that it touches."""
    width, height = crop_size(resolution)
    made = (cv2.resize(keep_mask(resolution), (width, height)) < 0.5).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shifts = [(x, y) for x in (-ROUNDING_PX, ROUNDING_PX) for y in (-ROUNDING_PX, ROUNDING_PX)]
    near = [matrix + np.array([[0, 0, x], [0, 0, y]]) for x, y in shifts]
    return np.any([cv2.warpAffine(made, shifted, frame_size[::-1], flags=flags) > 0 for shifted in near], axis=0)


def energy(pasted: np.ndarray, frame: np.ndarray, matrix: np.ndarray, resolution: int) -> float:
    """Mean square, in levels, of the steps added between neighbors in a thin band along the mask's edge."""
    made = in_frame(matrix, (frame.shape[0], frame.shape[1]), resolution).astype(np.uint8)
    reach = np.ones((2 * REACH_PX + 1, 2 * REACH_PX + 1), np.uint8)
    band = (cv2.dilate(made, reach) != cv2.erode(made, reach))[:-1, :-1]
    added = (pasted.astype(np.float64) - frame).mean(axis=-1)
    steps = np.diff(added, axis=1)[:-1] ** 2 + np.diff(added, axis=0)[:, :-1] ** 2
    return float(steps[band].mean())
