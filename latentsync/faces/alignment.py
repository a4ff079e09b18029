"""Face alignment: cut the square crop for the model out of a frame, by three points of the face, as in LatentSync.

A similarity transform maps the eyebrows and the nose to fixed points of the crop. A smoothed shift then moves the nose
closer to its fixed point.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from ..video.color import max_value
from .face_track import has_points
from .warp import crop_bounds, is_empty, offset_matrix, resize_lanczos, to_stored_pixels, warp_to_crop

if TYPE_CHECKING:
    from .face_track import FaceTrack, Smoothing

BORDER_GRAY = 127  # crop pixels outside the frame
TEMPLATE = ((17.0, 20.0), (58.0, 20.0), (37.5, 40.0))  # left eyebrow, right eyebrow, nose
TEMPLATE_SIZE = (75, 100)  # width and height of the crop, in the same unit
SHIFT_MOMENTUM = 0.2  # weight of the previous frame's nose shift


def affine_matrices(
    points: np.ndarray, resolution: int, cuts: Collection[int] = (), smoothing: Smoothing = "official"
) -> np.ndarray:
    """The affine transforms from frame to crop, for all frames of a track.

    With "official" smoothing, the function rounds points to whole pixels, and the nose shift is an exponential moving
    average over the frames. The average restarts after every frame without the face, and at every cut. (The official
    code never restarts the average.)

    Args:
        points: float64 (N, 3, 2), pixels: left eyebrow, right eyebrow, nose. NaN in frames without the face.
        resolution: side of the square crop in pixels.
        cuts: the first frame of every shot, except the first shot.
        smoothing: "official" smooths the points here. "zero-lag" means that the points are already smooth.

    Returns:
        float64 (N, 2, 3): frame pixels to crop pixels of `crop_size(resolution)`. NaN in frames without the face.

    Raises:
        FaceError: `points` has another shape, or the three points of a frame are at one pixel.
    """
    if points.ndim != 3 or points.shape[1:] != (3, 2):
        raise FaceError("Internal error: the face landmarks have the wrong dimensions. Please report this.")
    present = has_points(points)
    frames = np.flatnonzero(present)
    filtered = smoothing == "official"
    targets = np.rint(points[present]) if filtered else points[present]
    collapsed = frames[(targets == targets[:, :1]).all(axis=(1, 2))]
    if len(collapsed):
        raise FaceError(
            f"Frame {collapsed[0]} shows a face that is too small to align. The eyebrows and the nose are on one "
            "pixel. Use a larger video, or select another face."
        )
    matrices = np.full((len(points), 2, 3), np.nan)
    matrices[present], shifts = fit_similarity(targets, template(resolution))
    momentum = SHIFT_MOMENTUM if filtered else 0.0
    mean_shift = np.zeros(2)
    for frame, shift in zip(frames, shifts, strict=True):
        restart = frame == 0 or not present[frame - 1] or frame in cuts
        mean_shift = shift if restart else momentum * mean_shift + (1 - momentum) * shift
        matrices[frame, :, 2] += mean_shift
    return matrices


def track_matrices(track: FaceTrack, resolution: int) -> np.ndarray:
    """`affine_matrices` of a track, for stored pixels: float64 (source frames, 2, 3). Errors name the video."""
    try:
        matrices = affine_matrices(track.points, resolution, frozenset(track.cuts), track.smoothing)
        return to_stored_pixels(matrices, track.source)
    except FaceError as error:
        raise FaceError(f"{track.source.name}: {error}") from error


def crop(frame: np.ndarray, matrix: np.ndarray, resolution: int) -> np.ndarray:
    """Cut the square face crop out of one frame.

    Args:
        frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
        matrix: (2, 3), frame pixels to crop pixels.
        resolution: side of the square crop in pixels.

    Returns:
        uint8 (3, resolution, resolution).

    Raises:
        FaceError: the matrix belongs to a frame without the face.
    """
    size = crop_size(resolution)
    bounds = crop_bounds(matrix, size, (frame.shape[0], frame.shape[1]))
    if is_empty(bounds):
        return np.full((3, resolution, resolution), BORDER_GRAY, np.uint8)
    pixels = frame[bounds].astype(np.float32)
    if frame.dtype != np.uint8:
        pixels = (pixels / max_value(frame)).clip(0, 1) * 255
    warped = warp_to_crop(pixels, offset_matrix(matrix, bounds), size, BORDER_GRAY).astype(np.uint8)
    return np.ascontiguousarray(resize_lanczos(warped, resolution).transpose(2, 0, 1))


def template(resolution: int) -> np.ndarray:
    """Fixed points of left eyebrow, right eyebrow and nose, before the crop is made square: float64 (3, 2), pixels."""
    return np.array(TEMPLATE) * _unit_px(resolution)


def crop_size(resolution: int) -> tuple[int, int]:
    """Width and height in pixels of the crop before it is made square: 210 x 280 for 256, 420 x 560 for 512."""
    width, height = TEMPLATE_SIZE
    return int(width * _unit_px(resolution)), int(height * _unit_px(resolution))


def _unit_px(resolution: int) -> float:
    return 2.8 * resolution / 256


def fit_similarity(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares similarity transforms (N, 2, 3) from points (N, 3, 2) to the target (3, 2).

    Umeyama's method without reflections. The scale is the ratio of the standard deviations. The points of one face
    must not all be equal. The second result, (N, 2), is the shift of each nose to its target, in standard deviations.
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
    """Points (N, 3, 2), centered and divided by their standard deviation.

    Also the deviation (N,) and the mean (N, 2).
    """
    mean = points.mean(axis=1)
    centered = points - mean[:, None]
    deviation = centered.std(axis=(1, 2), ddof=1)
    return centered / deviation[:, None, None], deviation, mean


def keep_mask(resolution: int) -> np.ndarray:
    """The inpainting mask of LatentSync's training.

    Args:
        resolution: side of the square crop in pixels.

    Returns:
        float32 (resolution, resolution): 1 keeps the original pixel, 0 regenerates it (a U around mouth and jaw).
        Values between 0 and 1 come from resizing the edge.
    """
    stored = json.loads(Path(__file__).with_name("keep_mask.json").read_text(encoding="utf-8"))
    mask = np.full((stored["size"], stored["size"]), 255, np.uint8)
    for y, runs in stored["rows"]:
        for start, stop in runs:
            mask[y, start:stop] = 0
    return resize_lanczos(mask, resolution).astype(np.float32) / 255
