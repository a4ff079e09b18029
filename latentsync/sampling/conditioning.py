"""Inputs of the UNet: noise, mask, masked and reference latents."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.constants import LATENT_CHANNELS, LATENT_SCALE, LATENT_STRIDE
from ..models.protocols import VAE


def sample_noise(seed: int, resolution: int) -> Tensor:
    """float32 (1, 4, 1, R/8, R/8) on the CPU: the one noise frame of a clip, whatever device samples it."""
    side = resolution // LATENT_STRIDE
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, LATENT_CHANNELS, 1, side, side, generator=generator)


@torch.no_grad()
def prepare_conditioning(crops: Tensor, keep: Tensor, vae: VAE) -> Tensor:
    """What the UNet sees of a window besides the noise.

    Args:
        crops: uint8 (frames, 3, R, R).
        keep: float32 (R, R): 1 keep, 0 regenerate.
        vae: encodes both.

    Returns:
        (1, 9, frames, R/8, R/8) as the vae gives it: mask 1, masked latents 4, reference latents 4, scaled.
    """
    reference = normalize_pixels(crops)
    masked_latents = vae.encode(reference * keep.to(reference)) * LATENT_SCALE
    reference_latents = vae.encode(reference) * LATENT_SCALE
    mask = F.interpolate(keep[None, None], scale_factor=1 / LATENT_STRIDE, mode="nearest").to(reference_latents)
    channels = [mask.expand(len(crops), -1, -1, -1), masked_latents, reference_latents]
    return torch.cat(channels, dim=1).transpose(0, 1)[None]


def normalize_pixels(crops: Tensor) -> Tensor:
    """uint8 0 to 255 -> float32 -1 to 1."""
    return crops.float() / 127.5 - 1
