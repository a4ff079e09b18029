"""Blend mode "full crop": paste the whole face crop with a soft edge, like the official code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..faces import alignment
from ..faces.alignment import crop_size, keep_mask
from ..faces.warp import PixelBox, crop_bounds, is_empty, opencv, strips, warp_to_box
from ..video.color import max_value

if TYPE_CHECKING:
    from .settings import BlendSettings

FULL_SIZE_BLUR_PX = 8  # a wider blur runs on a smaller mask. The error stays below 1/255


class BoxBlender:
    """Pastes the whole crop. Outside the inpainting mask, the crop shows the original pixels, resampled twice.

    Args:
        resolution: side of the square model crop in pixels.
        settings: not used, because this mode has no options.
    """

    def __init__(self, resolution: int, settings: BlendSettings) -> None:  # noqa: ARG002 - see `Blender`
        self._resolution = resolution
        self._keep_mask = keep_mask(resolution)

    def prepare(self, faces: list[torch.Tensor], frames: list[np.ndarray], matrices: np.ndarray) -> list[torch.Tensor]:
        """Replace the pixels outside the inpainting mask with the original pixels."""
        crops = [alignment.crop(frame, m, self._resolution) for frame, m in zip(frames, matrices, strict=True)]
        square = (self._resolution, self._resolution)
        batch = torch.stack(faces)
        if batch.shape[2:] != square:
            batch = F.interpolate(batch, square, mode="bicubic", antialias=True)
        return list(apply_inpaint_mask(batch, np.stack(crops), self._keep_mask))

    def paste(
        self, frame: np.ndarray, face: torch.Tensor, matrix: np.ndarray, opacity: float | np.ndarray = 1.0
    ) -> np.ndarray:
        """See `Blender.paste`.

        Raises:
            FaceError: the matrix belongs to a frame without a face.
        """
        return alpha_blend(frame, paste_box(frame, face, matrix), opacity)


def paste_box(frame: np.ndarray, face: np.ndarray | torch.Tensor, matrix: np.ndarray) -> np.ndarray:
    """Paste the whole crop with a soft edge, as the official code does.

    Args:
        frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
        face: (3, R, R) in [-1, 1].
        matrix: (2, 3), frame pixels to the crop of `crop_size(R)`.

    Returns:
        A new frame of the same dtype. Pixels outside the bounds of the crop stay unchanged.

    Raises:
        FaceError: the matrix belongs to a frame without a face.
    """
    cv2 = opencv()
    white = max_value(frame)
    crop = to_crop_aspect(torch.as_tensor(face)) * (white / 2) + white / 2
    crop_px = (crop.shape[1], crop.shape[0])
    box = crop_bounds(matrix, crop_px, (frame.shape[0], frame.shape[1]))
    pasted = frame.copy()
    if is_empty(box):
        return pasted
    coverage, weight = _coverage_and_weight(box, matrix, crop_px)
    for strip in strips(box):
        rows = slice(strip[0].start - box[0].start, strip[0].stop - box[0].start)
        target = pasted[strip]
        warped = warp_to_box(crop, matrix, strip, outside=white / 2)
        np.clip(warped, 0, white, out=warped)
        background = target.astype(np.float32)
        cv2.multiply(warped, cv2.merge([weight[rows] * coverage[rows]] * 3), dst=warped)
        cv2.multiply(background, cv2.merge([1 - weight[rows]] * 3), dst=background)
        target[:] = cv2.add(warped, background, dst=warped).astype(frame.dtype)
    return pasted


def alpha_blend(frame: np.ndarray, pasted: np.ndarray, opacity: float | np.ndarray) -> np.ndarray:
    """Blend `pasted` over `frame`, both (H, W, 3). Pixels that are equal in both stay bit-exact.

    Args:
        opacity: 0 gives `frame`, 1 gives `pasted`. One number, or float32 (H, W).
    """
    alpha = opacity[..., None] if isinstance(opacity, np.ndarray) else np.float32(opacity)
    if np.all(alpha == 1):
        return pasted
    blended = frame + alpha * (pasted.astype(np.float32) - frame)
    return (np.rint(blended) if frame.dtype.kind == "u" else blended).astype(frame.dtype)


def apply_inpaint_mask(
    faces: torch.Tensor, crops: np.ndarray | torch.Tensor, mask: np.ndarray | torch.Tensor
) -> torch.Tensor:
    """Combine the decoded faces inside the inpainting mask with the original crops outside it.

    Args:
        faces: (n, 3, R, R), about [-1, 1].
        crops: uint8 (n, 3, R, R), crops of the original frames.
        mask: float32 (R, R), 1 where the original pixels stay, see `keep_mask`.

    Returns:
        (n, 3, R, R) on the device and in the dtype of `faces`.
    """
    keep = torch.as_tensor(mask).to(faces)
    originals = torch.as_tensor(crops).to(faces) / 127.5 - 1
    return faces * (1 - keep) + originals * keep


def to_crop_aspect(face: torch.Tensor) -> np.ndarray:
    """Resize a square face (3, R, R) to `crop_size(R)`: float32 (height, width, 3), C-contiguous."""
    width, height = crop_size(face.shape[-1])
    pixels = face.detach().float()[None]
    resized = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).cpu().numpy())


def _coverage_and_weight(box: PixelBox, matrix: np.ndarray, crop_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Coverage of each pixel of the box by the crop, and blend weight of each pixel: float32 (h, w) in [0, 1] each.

    The weight is the coverage, eroded and blurred by a twentieth of its side. 256 levels are enough for the coverage,
    because it is 0 or 1 except at its outline. `crop_px` is the width and height of the crop.
    """
    cv2 = opencv()
    ones = np.full((crop_px[1], crop_px[0]), 255, np.uint8)
    levels = cv2.erode(warp_to_box(ones, matrix, box, outside=0), np.ones((2, 2), np.uint8))
    coverage = levels * np.float32(1 / 255)
    edge_px = int((cv2.sumElems(levels)[0] / 255) ** 0.5) // 20
    if edge_px == 0:
        return coverage, coverage
    return coverage, _blur_mask(cv2.erode(levels, np.ones((2 * edge_px, 2 * edge_px), np.uint8)), edge_px)


def _blur_mask(levels: np.ndarray, edge_px: int) -> np.ndarray:
    """Blur uint8 (h, w) with a kernel of `2 * edge_px + 1`: float32 (h, w) in [0, 1].

    A wide blur runs on a mask that is smaller by an integer factor.
    """
    cv2 = opencv()
    factor = max(edge_px // FULL_SIZE_BLUR_PX, 1)
    height, width = levels.shape
    small = cv2.resize(levels, (-(-width // factor), -(-height // factor)), interpolation=cv2.INTER_AREA)
    small = small * np.float32(1 / 255)
    radius_px = round(edge_px / factor)
    # The official sigma, reduced by the blur of averaging and interpolation.
    variance = (0.3 * (edge_px - 1) + 0.8) ** 2 - (factor**2 - 1) / 4
    blurred = cv2.GaussianBlur(small, (2 * radius_px + 1, 2 * radius_px + 1), variance**0.5 / factor)
    return cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
