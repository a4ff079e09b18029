"""Blend mode "mouth": paste only the mouth area. Pixels outside the mask stay bit-exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..faces.alignment import crop_size, keep_mask
from ..faces.warp import (
    PixelBox,
    crop_bounds,
    invert_affine,
    is_empty,
    offset_matrix,
    opencv,
    transform_points,
    warp_to_box,
)
from ..video.color import max_value

if TYPE_CHECKING:
    from .settings import BlendSettings

STILL_PX = 0.02  # a mask that moves less than this changes no weight by 1/255
MAX_STEP_PX = 2  # face pixels per frame pixel. Above this, the face is downscaled before it is warped


class _WarpedMask(NamedTuple):
    """The mask in frame pixels: weight (h, w) inside `box`, and the matrix and frame size of this mask."""

    matrix: np.ndarray
    frame_size: tuple[int, int]
    box: PixelBox
    weight: np.ndarray


class MouthBlender:
    """Pastes only the mouth area of each face, and reuses the warped mask while the face does not move.

    Args:
        resolution: side of the square model crop in pixels.
        settings: `edge` sets the edge of the mouth.
    """

    def __init__(self, resolution: int, settings: BlendSettings) -> None:
        edge = settings.edge
        weight = mouth_weight(resolution, edge.grow, edge.feather)
        rows, columns = np.nonzero(weight.any(axis=1))[0], np.nonzero(weight.any(axis=0))[0]
        self._crop_size = crop_size(resolution)
        self._corner = np.array([columns[0], rows[0]], np.float64)
        self._weight = np.ascontiguousarray(weight[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        self._warped_mask: _WarpedMask | None = None

    def prepare(
        self,
        faces: list[torch.Tensor],
        frames: list[np.ndarray],  # noqa: ARG002 - see `Blender`
        matrices: np.ndarray,  # noqa: ARG002
    ) -> list[torch.Tensor]:
        """Return the faces unchanged."""
        return faces

    def paste(
        self, frame: np.ndarray, face: torch.Tensor, matrix: np.ndarray, opacity: float | np.ndarray = 1.0
    ) -> np.ndarray:
        """Paste the mouth area of a face.

        Args:
            frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
            face: (3, h, w) in [-1, 1], of any size. The function resizes the face to the crop.
            matrix: (2, 3), frame pixels to the crop of `crop_size(resolution)`.
            opacity: one number or float32 (H, W), in [0, 1].

        Returns:
            A new frame of the same dtype. Pixels with a mask weight of 0 stay unchanged.

        Raises:
            FaceError: the matrix belongs to a frame without a face.
        """
        mask = self._warp_mask(matrix, (frame.shape[0], frame.shape[1]))
        pasted = frame.copy()
        if is_empty(mask.box):
            return pasted
        background = frame[mask.box].astype(np.float32, copy=False)
        blended = _warp_face(
            face, offset_matrix(matrix, mask.box), self._crop_size, mask.weight.shape, max_value(frame)
        )
        weight = mask.weight * (opacity[mask.box] if isinstance(opacity, np.ndarray) else opacity)
        blended -= background
        blended *= weight[..., None]
        blended += background
        if frame.dtype.kind == "u":
            blended += 0.5
        pasted[mask.box] = blended.astype(frame.dtype, copy=False)
        return pasted

    def _warp_mask(self, matrix: np.ndarray, frame_size: tuple[int, int]) -> _WarpedMask:
        last = self._warped_mask
        if last is not None and last.frame_size == frame_size and _is_still(last.matrix, matrix, self._crop_size):
            return last
        to_mask = np.array(matrix, np.float64)
        to_mask[:, 2] -= self._corner
        height, width = self._weight.shape
        box = crop_bounds(to_mask, (width, height), frame_size)
        weight = warp_to_box(self._weight, to_mask, box, outside=0)
        self._warped_mask = _WarpedMask(np.array(matrix), frame_size, box, weight)
        return self._warped_mask


def mouth_weight(resolution: int, grow: float, feather: float) -> np.ndarray:
    """Blend weight of the new face at each pixel of a crop.

    Args:
        resolution: side of the square model crop in pixels.
        grow: expansion of the mask, in crop widths. A negative value shrinks the mask.
        feather: width of the soft edge inside the mask, in crop widths.

    Returns:
        float32 (height, width) of `crop_size(resolution)`, in [0, 1]. 0 outside the mask and at the crop's border.
    """
    cv2 = opencv()
    width, height = crop_size(resolution)
    keep = cv2.resize(keep_mask(resolution), (width, height), interpolation=cv2.INTER_LINEAR)
    inside = (keep < 0.5).astype(np.uint8)
    mask_depth_px = _distance_to_zero(inside) - _distance_to_zero(1 - inside) + grow * width
    border_px = _distance_to_zero(np.pad(np.ones((height, width), np.uint8), 1))[1:-1, 1:-1] - 1
    ramp = (np.minimum(mask_depth_px, border_px) / max(feather * width, 1)).clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)  # smoothstep


def _distance_to_zero(pixels: np.ndarray) -> np.ndarray:
    """Distance of each pixel of uint8 (h, w) to the nearest zero, in pixels."""
    cv2 = opencv()
    return cv2.distanceTransform(pixels, cv2.DIST_L2, 5)


def _warp_face(
    face: torch.Tensor, matrix: np.ndarray, crop_px: tuple[int, int], size: tuple[int, int], white: float
) -> np.ndarray:
    """Warp a face into a box of `size` (height, width): float32 (h, w, 3) in [0, `white`], resampled once.

    `crop_px` is the width and height of the crop that `matrix` maps to.
    """
    cv2 = opencv()
    planes = face.detach().float().cpu().numpy()
    pixels = cv2.merge([np.ascontiguousarray(plane) for plane in planes])
    step_px = np.sqrt(abs(np.linalg.det(matrix[:, :2]))) * pixels.shape[1] / crop_px[0]
    if step_px > MAX_STEP_PX:
        downscaled = (max(round(pixels.shape[1] / step_px), 1), max(round(pixels.shape[0] / step_px), 1))
        pixels = cv2.resize(pixels, downscaled, interpolation=cv2.INTER_AREA)
    # The face may have another size than the crop.
    scale = np.array(pixels.shape[1::-1], np.float64) / np.array(crop_px, np.float64)
    to_face = matrix * scale[:, None]
    to_face[:, 2] += (scale - 1) / 2
    warped = cv2.warpAffine(
        pixels,
        to_face,
        size[::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    warped *= white / 2
    warped += white / 2
    return np.clip(warped, 0, white, out=warped)


def _is_still(matrix: np.ndarray, other: np.ndarray, crop_px: tuple[int, int]) -> bool:
    """Whether two matrices map the crop's corners to the same frame pixels, within STILL_PX."""
    width, height = crop_px
    corners = np.array([[0, 0], [width, 0], [0, height]], np.float64)
    shift = transform_points(corners, invert_affine(matrix)) - transform_points(corners, invert_affine(other))
    return bool(np.abs(shift).max() < STILL_PX)
