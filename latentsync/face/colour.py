"""The colours of a new face brought to those of the footage around it.

Around the mask the network gives back what it was shown; where it does so in other colours, the mouth has them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .mask import keep_mask
from .warp import opencv

RING_SHARE = 0.08  # of the crop's side: how far around the mask colours are compared
CARRY = 0.8  # of the previous frame's correction
STRONGEST_GAIN = 1.4
FLAT = 1 / 255  # a spread of colours below a level says nothing


@dataclass(frozen=True, eq=False)
class Correction:
    """What turns the colours of a face into the footage's: `gain * face + offset`, on faces in [-1, 1].

    gain, offset: float32 (3,), red, green, blue.
    """

    gain: torch.Tensor
    offset: torch.Tensor

    def apply(self, face: torch.Tensor) -> torch.Tensor:
        """A face (3, h, w) in [-1, 1], corrected."""
        return face * self.gain.to(face)[:, None, None] + self.offset.to(face)[:, None, None]

    def after(self, previous: Correction | None) -> Correction:
        """This frame's correction, steadied by that of the frame before; None begins anew."""
        if previous is None:
            return self
        return Correction(
            CARRY * previous.gain + (1 - CARRY) * self.gain, CARRY * previous.offset + (1 - CARRY) * self.offset
        )

    def __repr__(self) -> str:
        return f"Correction(gain {self.gain.tolist()}, offset {self.offset.tolist()})"


def ring(resolution: int) -> torch.Tensor:
    """bool (resolution, resolution): the pixels of a crop close around the part that is made anew."""
    cv2 = opencv()
    kept = (keep_mask(resolution) > 0.99).astype(np.uint8)
    away = cv2.distanceTransform(kept, cv2.DIST_L2, 5)
    return torch.from_numpy((away > 0) & (away <= RING_SHARE * resolution))


def measure(face: torch.Tensor, crop: np.ndarray, around: torch.Tensor) -> Correction:
    """The correction that gives the ring of a face the mean and the spread of the footage's, channel by channel.

    Args:
        face: (3, h, w) in [-1, 1], as decoded; resized for the comparison if it is not (3, R, R).
        crop: uint8 (3, R, R), the footage's.
        around: bool (R, R), see `ring`.
    """
    side = crop.shape[-1]
    pixels = face.detach().float().cpu()
    if pixels.shape[1:] != (side, side):
        pixels = torch.nn.functional.interpolate(pixels[None], (side, side), mode="area")[0]
    made = pixels[:, around]
    seen = torch.from_numpy(crop)[:, around].float() / 127.5 - 1
    made_spread, seen_spread = made.std(dim=1), seen.std(dim=1)
    tells = (made_spread > FLAT) & (seen_spread > FLAT)
    gain = torch.where(tells, seen_spread / made_spread.clamp(min=FLAT), torch.ones(3))
    gain = gain.clamp(1 / STRONGEST_GAIN, STRONGEST_GAIN)
    return Correction(gain, seen.mean(dim=1) - gain * made.mean(dim=1))
