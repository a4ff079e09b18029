"""Inputs of the UNet: noise, mask, masked latents and reference latents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.constants import LATENT_CHANNELS, LATENT_SCALE, LATENT_STRIDE
from ..models.protocols import VAE
from ..tensor_buffer import TensorBuffer


def sample_noise(seed: int, resolution: int) -> Tensor:
    """The noise of one frame, which all frames use: float32 (1, 4, 1, R/8, R/8).

    The CPU computes the noise, so that a seed gives the same noise on every device.
    """
    side = resolution // LATENT_STRIDE
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, LATENT_CHANNELS, 1, side, side, generator=generator)


@torch.no_grad()
def prepare_conditioning(crops: Tensor, mask: Tensor, vae: VAE) -> Tensor:
    """The UNet's input channels for some frames, without the noise.

    Args:
        crops: uint8 (frames, 3, R, R).
        mask: float32 (R, R): 1 keeps the pixel, 0 regenerates it.
        vae: encodes the masked and the original crops of all frames in one call.

    Returns:
        (frames, 9, R/8, R/8) in the VAE's dtype: mask 1, masked latents 4, reference latents 4, both scaled.
    """
    pixels = crops.float() / 127.5 - 1
    images = torch.stack([pixels * mask.to(pixels), pixels], dim=1)
    latents = (vae.encode(images.flatten(0, 1)) * LATENT_SCALE).unflatten(0, (-1, 2)).flatten(1, 2)
    latent_mask = F.interpolate(mask[None, None], scale_factor=1 / LATENT_STRIDE, mode="nearest").to(latents)
    return torch.cat([latent_mask.expand(len(crops), -1, -1, -1), latents], dim=1)


class ConditioningStore:
    """Stores the conditioning of a face track, so that further runs need not encode the face crops again.

    The conditioning does not depend on the seed, the audio or the sampler.

    Args:
        num_frames: number of frames in the original video.
        dtype: dtype of the UNet.
        folder: folder of the temporary file of a long video. None: the system's temporary folder.
    """

    def __init__(self, num_frames: int, dtype: torch.dtype, folder: Path | None = None) -> None:
        self._buffer = TensorBuffer(f"the latents of {num_frames} face crops", num_frames, folder, dtype)
        self._rows: dict[int, int] = {}

    def missing(self, frames: Iterable[int]) -> list[int]:
        """The frames without stored conditioning, each once, in order."""
        return [frame for frame in dict.fromkeys(frames) if frame not in self._rows]

    def add(self, frames: Sequence[int], conditioning: Tensor) -> None:
        """Store the result of `prepare_conditioning` for some frames."""
        self._rows.update(zip(frames, self._buffer.append(conditioning), strict=True))

    def window(self, frames: Sequence[int]) -> Tensor:
        """The conditioning of stored frames in the order of the UNet's input: (9, frames, R/8, R/8), on the CPU."""
        return self._buffer.tensor()[[self._rows[frame] for frame in frames]].transpose(0, 1)
