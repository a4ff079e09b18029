"""What the sampler expects of the networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    pass


AudioKV = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of a batch's audio for each spatial transformer in order: (clips * frames, tokens, width) each."""


class Operations(Protocol):
    """A namespace of the layers that hold weights: `torch.nn`, or ComfyUI's casting layers."""

    Linear: type[nn.Linear]
    Conv2d: type[nn.Conv2d]
    GroupNorm: type[nn.GroupNorm]
    LayerNorm: type[nn.LayerNorm]


class VAE(Protocol):
    """A Stable Diffusion 1.x VAE, whoever runs it. Latents are unscaled posterior means."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, R, R) in [-1, 1] -> (n, 4, R/8, R/8)."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, 4, R/8, R/8) -> (n, 3, R, R), about [-1, 1]."""
        ...


class Denoiser(Protocol):
    """What the sampler needs of a network: see `models.unet.UNet`."""

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV: ...

    def __call__(
        self,
        x: Tensor,
        timestep: float,
        audio_kv: AudioKV | None,
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]: ...
