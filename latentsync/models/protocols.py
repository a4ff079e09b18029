"""Interfaces between the sampler, the networks and their host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

AudioKV = Sequence[tuple[Tensor, Tensor]]
"""Audio keys and values of each spatial transformer, in order: (windows * frames, tokens, width) each."""


class Operations(Protocol):
    """The classes of the layers with weights, from `torch.nn` or from ComfyUI's casting layers."""

    Linear: type[nn.Linear]
    Conv2d: type[nn.Conv2d]
    GroupNorm: type[nn.GroupNorm]
    LayerNorm: type[nn.LayerNorm]


class VAEDecoder(Protocol):
    """The decoder of a Stable Diffusion 1.x VAE."""

    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled (n, 4, R/8, R/8) -> (n, 3, R, R), about [-1, 1]."""
        ...


class VAE(VAEDecoder, Protocol):
    """A Stable Diffusion 1.x VAE. Latents are unscaled posterior means."""

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, R, R) in [-1, 1] -> (n, 4, R/8, R/8)."""
        ...


@runtime_checkable
class BatchDecoder(VAEDecoder, Protocol):
    """Decodes several batches at the same time, such as on a cluster."""

    def decode_batches(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the result of `decode` for each batch, in order."""
        ...


class Denoiser(Protocol):
    """A network that predicts noise. `models.unet.UNet` documents the arguments."""

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


class AudioEncoder(Protocol):
    """Whisper's encoder, see `models.whisper.WhisperEncoder`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights. The encoder's input needs the same device and dtype."""
        ...

    def __call__(self, mel: Tensor) -> Tensor:
        """Log-mel (batch, 80, 3000) -> hidden states (batch, 1500, 5, 384)."""
        ...
