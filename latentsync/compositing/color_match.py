"""Match the colors of a new face to the frame around the mask.

Outside the inpainting mask, the model reconstructs the original crop. If the new face has wrong colors outside the
mask, the mouth also has wrong colors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..faces.alignment import crop_size, keep_mask
from ..faces.warp import invert_affine, opencv, sample_bilinear, transform_points
from ..video.color import max_value

RING_WIDTH = 0.08  # in crop sides: colors are compared within this distance of the mask
STRIDE_PX = 2  # between compared pixels
SMOOTHING = 0.8  # weight of the previous frame's correction
MIN_VISIBLE = 0.95  # visibility of a face pixel that is compared, next to an object in front of the face
MIN_SHARE = 0.05  # share of the ring that must be visible. Fewer pixels show too little of the skin
MAX_GAIN = 1.4
MIN_SPREAD = 1 / 255  # below this standard deviation, a channel's gain stays 1


@dataclass(frozen=True, eq=False)
class ColorCorrection:
    """Corrects a face in [-1, 1]: `gain * face + offset`.

    gain, offset: float32 (3,), for red, green and blue.
    """

    gain: torch.Tensor
    offset: torch.Tensor

    def apply(self, face: torch.Tensor) -> torch.Tensor:
        """Correct a face (3, h, w) in [-1, 1]."""
        return face * self.gain.to(face)[:, None, None] + self.offset.to(face)[:, None, None]

    def smoothed(self, previous: ColorCorrection | None) -> ColorCorrection:
        """Exponential moving average with the previous frame's correction. None starts a new average."""
        if previous is None:
            return self
        return ColorCorrection(
            SMOOTHING * previous.gain + (1 - SMOOTHING) * self.gain,
            SMOOTHING * previous.offset + (1 - SMOOTHING) * self.offset,
        )

    def __repr__(self) -> str:
        return f"ColorCorrection(gain {self.gain.tolist()}, offset {self.offset.tolist()})"


class ColorMatcher:
    """Compares face and frame in a ring around the inpainting mask, where both show the same content.

    Args:
        resolution: side of the square model crop in pixels.
    """

    def __init__(self, resolution: int) -> None:
        cv2 = opencv()
        outside = (keep_mask(resolution) > 0.99).astype(np.uint8)
        distance_px = cv2.distanceTransform(outside, cv2.DIST_L2, 5)
        ring = (distance_px > 0) & (distance_px <= RING_WIDTH * resolution)
        rows, columns = np.nonzero(ring[::STRIDE_PX, ::STRIDE_PX])
        self.rows, self.columns = STRIDE_PX * rows, STRIDE_PX * columns
        self._resolution = resolution
        aspect = np.array(crop_size(resolution)) / resolution
        self._crop_points = (np.stack([self.columns, self.rows], axis=1) + 0.5) * aspect - 0.5

    def match_color(
        self, face: torch.Tensor, frame: np.ndarray, matrix: np.ndarray, visible: np.ndarray | None = None
    ) -> ColorCorrection | None:
        """The correction after which face and frame have the same mean and standard deviation in the ring, for each
        channel.

        The result is None if less than MIN_SHARE of the ring is visible inside the frame.

        Args:
            face: (3, h, w) in [-1, 1]. The function resizes a face of another size for the comparison.
            frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
            matrix: (2, 3), frame pixels to the crop of `crop_size(resolution)`.
            visible: float32 (H, W), 1 where the frame shows the face, 0 at other pixels. None: 1 everywhere.
        """
        points = transform_points(self._crop_points, invert_affine(matrix))
        in_frame = ((points >= 0) & (points <= np.array(frame.shape[1::-1]) - 1)).all(axis=1)
        if visible is not None:
            x, y = np.rint(points).astype(int).clip(0, np.array(frame.shape[1::-1]) - 1).T
            in_frame &= visible[y, x] > MIN_VISIBLE
        if in_frame.mean() < MIN_SHARE:
            return None
        frame_colors = sample_bilinear(frame, points[in_frame]) * (2 / max_value(frame)) - 1
        face_colors = self._sample_ring(face)[in_frame]
        frame_spread, face_spread = frame_colors.std(axis=0), face_colors.std(axis=0)
        has_contrast = (face_spread > MIN_SPREAD) & (frame_spread > MIN_SPREAD)
        gain = np.where(has_contrast, frame_spread / np.maximum(face_spread, MIN_SPREAD), np.float32(1))
        gain = gain.clip(1 / MAX_GAIN, MAX_GAIN)
        offset = frame_colors.mean(axis=0) - gain * face_colors.mean(axis=0)
        return ColorCorrection(torch.from_numpy(gain), torch.from_numpy(offset))

    def _sample_ring(self, face: torch.Tensor) -> np.ndarray:
        """The face's colors in the ring: float32 (n, 3)."""
        pixels = face.detach().float().cpu()
        if pixels.shape[1:] != (self._resolution, self._resolution):
            pixels = F.interpolate(pixels[None], (self._resolution, self._resolution), mode="area")[0]
        return pixels.numpy()[:, self.rows, self.columns].T
