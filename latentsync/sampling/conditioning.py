"""Inputs of the UNet: noise, mask, masked latents and reference latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.constants import LATENT_CHANNELS, LATENT_SCALE, LATENT_STRIDE
from ..models.protocols import VAE


def sample_noise(seed: int, resolution: int) -> Tensor:
    """The noise of one frame, which is used for all frames: float32 (1, 4, 1, R/8, R/8).

    It is drawn on the CPU, so that a seed gives the same noise on every device.
    """
    side = resolution // LATENT_STRIDE
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, LATENT_CHANNELS, 1, side, side, generator=generator)


@torch.no_grad()
def prepare_conditioning(crops: Tensor, mask: Tensor, vae: VAE) -> Tensor:
    """The input channels of a window besides the noise.

    Args:
        crops: uint8 (frames, 3, R, R).
        mask: float32 (R, R): 1 keep, 0 regenerate.
        vae: encodes the masked and the original crops.

    Returns:
        (1, 9, frames, R/8, R/8) in the VAE's dtype: mask 1, masked latents 4, reference latents 4, both scaled.
    """
    pixels = crops.float() / 127.5 - 1
    masked_latents = vae.encode(pixels * mask.to(pixels)) * LATENT_SCALE
    reference_latents = vae.encode(pixels) * LATENT_SCALE
    latent_mask = F.interpolate(mask[None, None], scale_factor=1 / LATENT_STRIDE, mode="nearest").to(reference_latents)
    channels = [latent_mask.expand(len(crops), -1, -1, -1), masked_latents, reference_latents]
    return torch.cat(channels, dim=1).transpose(0, 1)[None]
