"""From three points of a face to the square crop that the model sees, as in LatentSync's alignment.

A similarity transform takes the brows and the nose to fixed places of a crop; the nose is then pulled to its
place by a smoothed shift.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from ..video.color import max_value
from .warp import crop_bounds, is_empty, offset_matrix, resize_lanczos, warp_to_crop

if TYPE_CHECKING:
    from .face_track import FaceTrack, Smoothing


OUTSIDE = 127  # gray of crop pixels that lie outside the frame


TEMPLATE = ((17.0, 20.0), (58.0, 20.0), (37.5, 40.0))  # left brow, right brow, nose


TEMPLATE_SIZE = (75, 100)  # width and height of the crop, in the same units


CARRY = 0.2  # of the previous frame's nose shift


def affine_matrices(
    points: np.ndarray, resolution: int, cuts: Collection[int] = (), smoothing: Smoothing = "upstream"
) -> np.ndarray:
    """The maps from frame to crop of a whole track.

    Upstream rounds the points to whole pixels and carries the shift on from frame to frame. The shift is causal state
    and starts anew after every frame without the face and with every shot, where upstream carries it on. Points that
    are steady already need neither.

    Args:
        points: float64 (N, 3, 2), pixels: left brow, right brow, nose (image left first); NaN where absent.
        resolution: side of the square crop in pixels.
        cuts: frames that begin a new shot.
        smoothing: "upstream" filters here; "zero-lag" points have been steadied when they were made.

    Returns:
        float64 (N, 2, 3): frame pixels to crop pixels of `crop_size(resolution)`; NaN where absent.

    Raises:
        FaceError: the points are not three a frame, or fall on one pixel.
    """
    if points.ndim != 3 or points.shape[1:] != (3, 2):
        raise FaceError(f"alignment points must be (frames, 3, 2), not {points.shape}")
    maps = np.full((len(points), 2, 3), np.nan)
    present = np.isfinite(points.sum(axis=(1, 2)))
    exact = smoothing == "zero-lag"
    given = points[present] if exact else np.rint(points[present])
    _check_apart(given, np.flatnonzero(present))
    maps[present], shifts = fit_similarity(given, template(resolution))
    carry = 0.0 if exact else CARRY
    shift = np.zeros(2)
    for place, frame in enumerate(np.flatnonzero(present)):
        begins = frame == 0 or not present[frame - 1] or frame in cuts
        shift = shifts[place] if begins else carry * shift + (1 - carry) * shifts[place]
        maps[frame, :, 2] += shift
    return maps


def track_matrices(track: FaceTrack, resolution: int) -> np.ndarray:
    """`matrices` of a track: float64 (source frames, 2, 3); errors name its source."""
    try:
        return affine_matrices(track.points, resolution, frozenset(track.cuts), track.smoothing)
    except FaceError as error:
        raise FaceError(f"{track.source.name}, {error}") from error


def crop(frame: np.ndarray, matrix: np.ndarray, resolution: int) -> np.ndarray:
    """The square crop of one frame's face.

    Args:
        frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
        matrix: (2, 3), frame pixels to crop pixels.
        resolution: side of the square crop in pixels.

    Returns:
        uint8 (3, resolution, resolution).

    Raises:
        FaceError: the matrix is that of a frame without the face.
    """
    size = crop_size(resolution)
    box = crop_bounds(matrix, size, (frame.shape[0], frame.shape[1]))
    if is_empty(box):
        return np.full((3, resolution, resolution), OUTSIDE, np.uint8)
    pixels = frame[box].astype(np.float32)
    if frame.dtype != np.uint8:
        pixels = (pixels / max_value(frame)).clip(0, 1) * 255
    warped = warp_to_crop(pixels, offset_matrix(matrix, box), size, OUTSIDE).astype(np.uint8)
    return np.ascontiguousarray(resize_lanczos(warped, resolution).transpose(2, 0, 1))


def template(resolution: int) -> np.ndarray:
    """Where left brow, right brow and nose belong: float64 (3, 2), pixels of the crop before it is made square."""
    return np.array(TEMPLATE) * _unit_px(resolution)


def crop_size(resolution: int) -> tuple[int, int]:
    """Width and height in pixels of the crop before it is made square: 210 x 280 for 256, 420 x 560 for 512."""
    width, height = TEMPLATE_SIZE
    return int(width * _unit_px(resolution)), int(height * _unit_px(resolution))


def _unit_px(resolution: int) -> float:
    return 2.8 * resolution / 256


def fit_similarity(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares similarities (N, 2, 3) from points (N, 3, 2) to the target (3, 2), and what the nose misses (N, 2).

    Points of one face must not all be the same.
    Umeyama's method without reflections; scale is the ratio of deviations. The miss is in deviations, not pixels.
    """
    start, start_deviation, start_mean = _normalized(points)
    goal, goal_deviation, goal_mean = _normalized(target[None])
    left, _, right = np.linalg.svd(np.swapaxes(goal, -1, -2) @ start)
    handedness = np.linalg.det(left) * np.linalg.det(right)
    left[..., -1] *= handedness[:, None]
    linear = left @ right * (goal_deviation / start_deviation)[:, None, None]
    offset = goal_mean - np.einsum("nij,nj->ni", linear, start_mean)
    return np.concatenate([linear, offset[..., None]], axis=-1), (goal - start)[:, 2]


def _normalized(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (N, 3, 2) centerd and divided by their one deviation, the deviation (N,), the mean (N, 2)."""
    mean = points.mean(axis=1)
    centerd = points - mean[:, None]
    deviation = centerd.std(axis=(1, 2), ddof=1)
    return centerd / deviation[:, None, None], deviation, mean


def _check_apart(points: np.ndarray, frames: np.ndarray) -> None:
    """Raises FaceError where the points (N, 3, 2) of a frame, of `frames` (N,), are all the same."""
    wrong = np.flatnonzero((points == points[:, :1]).all(axis=(1, 2)))
    if len(wrong):
        raise FaceError(
            f"frame {frames[wrong[0]]}: the face is too small to align, its brows and nose fall on one pixel. "
            "Use a larger picture, or choose another face."
        )


def keep_mask(resolution: int) -> np.ndarray:
    """The mask that the model was trained with.

    Args:
        resolution: side of the square crop in pixels.

    Returns:
        float32 (resolution, resolution): 1 is kept from the source, 0 is regenerated (a U around mouth and jaw);
        in between only where resizing softened the edge.
    """
    stored = json.loads(Path(__file__).with_name("keep_mask.json").read_text(encoding="utf-8"))
    mask = np.full((stored["size"], stored["size"]), 255, np.uint8)
    for y, runs in stored["rows"]:
        for first, last in runs:
            mask[y, first:last] = 0
    return resize_lanczos(mask, resolution).astype(np.float32) / 255
