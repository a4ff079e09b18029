"""The colors of a new face brought to those of the footage around it.

Around the mask the network gives back what it was shown; where it does so in other colors, the mouth has them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..faces.alignment import crop_size, keep_mask
from ..faces.warp import invert_affine, opencv, sample_bilinear, transform_points
from ..video.color import max_value

RING_SHARE = 0.08  # of the crop's side: how far around the mask colors are compared


STRIDE_PX = 2  # between the pixels compared: neighbours tell the same


CARRY = 0.8  # of the previous frame's correction


STRONGEST_GAIN = 1.4


FLAT = 1 / 255  # a spread of colors below a level says nothing


@dataclass(frozen=True, eq=False)
class ColorCorrection:
    """What turns the colors of a face into the footage's: `gain * face + offset`, on faces in [-1, 1].

    gain, offset: float32 (3,), red, green, blue.
    """

    gain: torch.Tensor
    offset: torch.Tensor

    def apply(self, face: torch.Tensor) -> torch.Tensor:
        """A face (3, h, w) in [-1, 1], corrected."""
        return face * self.gain.to(face)[:, None, None] + self.offset.to(face)[:, None, None]

    def after(self, previous: ColorCorrection | None) -> ColorCorrection:
        """This frame's correction, steadied by that of the frame before; None begins anew."""
        if previous is None:
            return self
        return ColorCorrection(
            CARRY * previous.gain + (1 - CARRY) * self.gain, CARRY * previous.offset + (1 - CARRY) * self.offset
        )

    def __repr__(self) -> str:
        return f"Correction(gain {self.gain.tolist()}, offset {self.offset.tolist()})"


class Ring:
    """Pixels of a crop close around the part that is made anew: there face and footage show the same.

    Args:
        resolution: side of the square crop in pixels.
    """

    def __init__(self, resolution: int) -> None:
        cv2 = opencv()
        kept = (keep_mask(resolution) > 0.99).astype(np.uint8)
        away = cv2.distanceTransform(kept, cv2.DIST_L2, 5)
        close = (away > 0) & (away <= RING_SHARE * resolution)
        rows, columns = np.nonzero(close[::STRIDE_PX, ::STRIDE_PX])
        self.rows, self.columns = STRIDE_PX * rows, STRIDE_PX * columns
        self._side = resolution
        stretch = np.array(crop_size(resolution)) / resolution
        self._in_crop = (np.stack([self.columns, self.rows], axis=1) + 0.5) * stretch - 0.5

    def match(self, face: torch.Tensor, frame: np.ndarray, matrix: np.ndarray) -> ColorCorrection:
        """The correction that gives the face's ring the mean and the spread of the footage's, channel by channel.

        Args:
            face: (3, h, w) in [-1, 1], as decoded; resized for the comparison if it is not (3, R, R).
            frame: (H, W, 3), uint8, uint16, or float32 in [0, 1].
            matrix: (2, 3), frame pixels to the crop of `crop_size(resolution)`.
        """
        places = transform_points(self._in_crop, invert_affine(matrix))
        inside = ((places >= 0) & (places <= np.array(frame.shape[1::-1]) - 1)).all(axis=1)
        if not inside.any():
            return ColorCorrection(torch.ones(3), torch.zeros(3))
        seen = sample_bilinear(frame, places[inside]) * (2 / max_value(frame)) - 1
        made = self._of(face)[inside]
        made_spread, seen_spread = made.std(axis=0), seen.std(axis=0)
        tells = (made_spread > FLAT) & (seen_spread > FLAT)
        gain = np.where(tells, seen_spread / np.maximum(made_spread, FLAT), np.float32(1))
        gain = gain.clip(1 / STRONGEST_GAIN, STRONGEST_GAIN)
        return ColorCorrection(torch.from_numpy(gain), torch.from_numpy(seen.mean(axis=0) - gain * made.mean(axis=0)))

    def _of(self, face: torch.Tensor) -> np.ndarray:
        """The face's colors at the ring: float32 (n, 3)."""
        pixels = face.detach().float().cpu()
        if pixels.shape[1:] != (self._side, self._side):
            pixels = F.interpolate(pixels[None], (self._side, self._side), mode="area")[0]
        return pixels.numpy()[:, self.rows, self.columns].T
