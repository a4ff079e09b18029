"""The new mouth alone into the frame: every pixel outside the mask stays what it was."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..errors import UsageError
from ..faces.alignment import crop_size, keep_mask
from ..faces.warp import (
    PixelBox,
    crop_bounds,
    invert_affine,
    is_empty,
    offset_matrix,
    opencv,
    transform_points,
    warp_to_frame,
)
from ..video.color import max_value
from .settings import MaskEdge

STILL_PX = 0.02  # a mask that moves less changes no weight by as much as a level


LARGEST_STEP = 2  # pixels of the face per pixel of the frame, from which it is shrunk before it is laid in


class _WarpedMask(NamedTuple):
    """A mask laid into frames: with which matrix, into which box of it, and its weight (h, w) there."""

    matrix: np.ndarray
    frame_size: tuple[int, int]
    box: PixelBox
    weight: np.ndarray


class MouthBlender:
    """Lays the faces of one clip into its frames, and keeps the mask while the face stays where it is.

    Args:
        resolution: side of the square crop in pixels.
        edge: where the mouth ends.

    Raises:
        UsageError: the edge leaves nothing of the mouth.
    """

    def __init__(self, resolution: int, edge: MaskEdge) -> None:
        weight = mouth_weight(resolution, edge.grow, edge.feather)
        rows, columns = np.nonzero(weight.any(axis=1))[0], np.nonzero(weight.any(axis=0))[0]
        if not len(rows):
            raise UsageError(f"a mask grown by {edge.grow:.0%} leaves nothing of the mouth: grow it more")
        self._crop_size = crop_size(resolution)
        self._corner = np.array([columns[0], rows[0]], np.float64)
        self._weight = np.ascontiguousarray(weight[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        self._laid: _WarpedMask | None = None

    def paste(
        self, frame: np.ndarray, face: torch.Tensor, matrix: np.ndarray, level: float | np.ndarray = 1.0
    ) -> np.ndarray:
        """Lay a face into its frame.

        Args:
            frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
            face: (3, h, w) in [-1, 1], of any size: it is stretched over the crop.
            matrix: (2, 3), frame pixels to the crop of `crop_size(resolution)`.
            level: how much of it shows, 0 to 1: one number, or float32 (H, W).

        Returns:
            A new frame of the same dtype; where the mask's weight is 0 its pixels are those of `frame`.

        Raises:
            FaceError: the matrix is that of a frame without the face.
        """
        laid = self._lay(matrix, (frame.shape[0], frame.shape[1]))
        pasted = frame.copy()
        if is_empty(laid.box):
            return pasted
        under = frame[laid.box]
        over = _warp_face(
            face, offset_matrix(matrix, laid.box), self._crop_size, (under.shape[0], under.shape[1]), max_value(frame)
        )
        shown = level[laid.box] if isinstance(level, np.ndarray) else level
        pasted[laid.box] = _blend(under, over, laid.weight * shown)
        return pasted

    def _lay(self, matrix: np.ndarray, frame_size: tuple[int, int]) -> _WarpedMask:
        held = self._laid
        if held is not None and held.frame_size == frame_size and _is_still(held.matrix, matrix, self._crop_size):
            return held
        part = np.array(matrix, np.float64)
        part[:, 2] -= self._corner
        height, width = self._weight.shape
        box = crop_bounds(part, (width, height), frame_size)
        size = (box[0].stop - box[0].start, box[1].stop - box[1].start)
        empty = is_empty(box)
        weight = (
            np.zeros((0, 0), np.float32)
            if empty
            else warp_to_frame(self._weight, offset_matrix(part, box), size, outside=0)
        )
        self._laid = _WarpedMask(np.array(matrix), frame_size, box, weight)
        return self._laid


def _blend(under: np.ndarray, over: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`over` float32 on `under`, both (h, w, 3), by `weight` (h, w): where it is 0, `under` to the bit."""
    base = under.astype(np.float32, copy=False)
    mixed = over
    mixed -= base
    mixed *= weight[..., None]
    mixed += base
    if under.dtype.kind == "u":
        mixed += 0.5
    return mixed.astype(under.dtype, copy=False)


def _warp_face(
    face: torch.Tensor, matrix: np.ndarray, crop_px: tuple[int, int], size: tuple[int, int], brightest: float
) -> np.ndarray:
    """The face in a box of `size` height and width: float32 (h, w, 3) from 0 to `brightest`, resampled once."""
    cv2 = opencv()
    planes = face.detach().float().cpu().numpy()
    pixels = cv2.merge([np.ascontiguousarray(plane) for plane in planes])
    step = np.sqrt(abs(np.linalg.det(matrix[:, :2]))) * pixels.shape[1] / crop_px[0]
    if step > LARGEST_STEP:
        smaller = (max(round(pixels.shape[1] / step), 1), max(round(pixels.shape[0] / step), 1))
        pixels = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    over = cv2.warpAffine(
        pixels,
        _stretched(matrix, crop_px, (pixels.shape[1], pixels.shape[0])),
        size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    over *= brightest / 2
    over += brightest / 2
    return np.clip(over, 0, brightest, out=over)


def _stretched(matrix: np.ndarray, crop_px: tuple[int, int], face_px: tuple[int, int]) -> np.ndarray:
    """The map to a face of another size than its crop; both sizes are width and height."""
    stretch = np.array(face_px, np.float64) / np.array(crop_px, np.float64)
    stretched = matrix * stretch[:, None]
    stretched[:, 2] += (stretch - 1) / 2
    return stretched


def _is_still(matrix: np.ndarray, other: np.ndarray, crop_px: tuple[int, int]) -> bool:
    """Whether two maps put the crop's corners at the same places of the frame, but for what cannot be seen."""
    width, height = crop_px
    corners = np.array([[0, 0], [width, 0], [0, height]], np.float64)
    places, others = transform_points(corners, invert_affine(matrix)), transform_points(corners, invert_affine(other))
    return bool(np.abs(places - others).max() < STILL_PX)


def mouth_weight(resolution: int, grow: float, feather: float) -> np.ndarray:
    """How much of the new face shows at each pixel of a crop: nothing outside the mask.

    Args:
        resolution: side of the square crop in pixels.
        grow: how far the mask is widened, in crop widths; negative: narrowed.
        feather: over how much of its inner edge the mask fades, in crop widths.

    Returns:
        float32, height and width of `crop_size(resolution)`, in [0, 1]; 0 at the crop's own edge.
    """
    cv2 = opencv()
    width, height = crop_size(resolution)
    kept = cv2.resize(keep_mask(resolution), (width, height), interpolation=cv2.INTER_LINEAR)
    made = (kept < 0.5).astype(np.uint8)
    beyond_px = _distance(made) - _distance(1 - made) + grow * width
    within_crop_px = _distance(np.pad(np.ones((height, width), np.uint8), 1))[1:-1, 1:-1] - 1
    depth = np.minimum(beyond_px, within_crop_px) / max(feather * width, 1)
    ramp = depth.clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def _distance(pixels: np.ndarray) -> np.ndarray:
    """How far each pixel that is not 0 lies from one that is, in pixels."""
    cv2 = opencv()
    return cv2.distanceTransform(pixels, cv2.DIST_L2, 5)
