"""Untrained networks in the official layout, tiny or at full size.

These networks run every stage without the real weights.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.constants import AUDIO_WIDTH
from ..models.layers import sinusoid_table
from ..models.unet import UNet, UNetConfig
from ..models.vae import DiffusersVAE, autoencoder_of
from ..models.whisper import TINY, WhisperEncoder, whisper_encoder
from . import loader, metadata
from .loader import Checkpoint

UNET_CONFIG = UNetConfig(channels=(32, 64, 64, 64))
VAE_CHANNELS = (32, 32, 64, 64)
WHISPER_DIMS = {
    **TINY,
    "n_vocab": 51865,
    "n_text_ctx": 448,
    "n_text_state": AUDIO_WIDTH,
    "n_text_head": 6,
    "n_text_layer": 4,
}
METADATA = {metadata.WEIGHTS: metadata.SYNTHETIC}
TABLES = ("pos_encoder.pe", "encoder.positional_embedding")  # sinusoidal, not random
NOISE_VALUES = 1_000_003  # a prime, so that no two rows of a matrix begin at the same value


def unet() -> UNet:
    """A UNet with few channels and the inputs and outputs of `models.unet.UNet`, float32."""
    return loader.load_unet(_checkpoint("unet", unet_state()))


def whisper() -> WhisperEncoder:
    """An encoder of the size of Whisper tiny, float32."""
    return loader.load_whisper(_checkpoint("whisper", whisper_state(), {"dims": WHISPER_DIMS}))


def vae() -> DiffusersVAE:
    """A VAE with few channels in the layout of Stable Diffusion 1.x: 4 latent channels, stride 8, float32."""
    return loader.load_vae(_checkpoint("vae", vae_state()))


def unet_state() -> dict[str, Tensor]:
    """The state dict of `unet`."""
    return _random_state(lambda: UNet(UNET_CONFIG))


def whisper_state() -> dict[str, Tensor]:
    """The state dict of `whisper`."""
    return _random_state(whisper_encoder(WHISPER_DIMS))


def vae_state() -> dict[str, Tensor]:
    """The state dict of `vae`."""
    return _random_state(autoencoder_of(VAE_CHANNELS, layers=1))


def repeated_state(factory: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights of a UNet or a VAE of any size: one repeated block of noise, which the device makes within seconds."""
    noise = torch.randn(NOISE_VALUES, generator=torch.Generator().manual_seed(0)).to(device, dtype)

    def weight(key: str, shape: tuple[int, ...]) -> Tensor:
        if key.endswith(TABLES):
            return sinusoid_table(*shape[1:]).to(device, dtype)
        count = math.prod(shape)
        return _scaled(key, noise.repeat(-(-count // NOISE_VALUES))[:count].view(shape))

    return {key: weight(key, shape) for key, shape in loader.meta_shapes(factory).items()}


def _random_state(factory: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Random weights for a network, with the network's own positional tables."""
    tables = {key: tensor for key, tensor in factory().state_dict().items() if key.endswith(TABLES)}
    shapes = loader.meta_shapes(factory)
    return {key: tables[key] if key in tables else _random_tensor(key, shape) for key, shape in shapes.items()}


def _random_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """A random tensor for a key, the same on every machine."""
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
    return _scaled(key, torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def _scaled(key: str, values: Tensor) -> Tensor:
    """Turn values of variance 1 into scales near 1, biases near 0, or matrices that preserve variance."""
    if values.ndim > 1:
        return values / math.sqrt(math.prod(values.shape[1:]))
    return values * 0.02 + (1.0 if key.endswith("weight") else 0.0)


def _checkpoint(name: str, tensors: dict[str, Tensor], values: Mapping[str, object] = METADATA) -> Checkpoint:
    return Checkpoint(Path(f"synthetic {name}"), tensors, dict(values))
