"""Stable Diffusion 1.x's VAE, run by diffusers (inside ComfyUI its own takes this place)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import DependencyError, WeightsError
from ..spec import LATENT_CHANNELS

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

BLOCKS = 4
SLICE_IMAGES = 4  # images in the VAE at once: bounds its memory, and gains nothing beyond

# sd-vae-ft-mse was published before diffusers renamed the projections of its attention
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class DiffusersCodec:
    """A `types.Codec` over diffusers' AutoencoderKL; it runs in the device and dtype of its weights."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae: Any = vae  # diffusers' own annotations do not hold

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, R, R) in [-1, 1] -> unscaled posterior means (n, 4, R/8, R/8)."""
        return self._sliced(lambda part: self.vae.encode(part).latent_dist.mean, images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled (n, 4, R/8, R/8) -> (n, 3, R, R), about [-1, 1]."""
        return self._sliced(lambda part: self.vae.decode(part).sample, latents)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DiffusersCodec:
        """Moves the weights, in place as `nn.Module.to` does."""
        self.vae.to(device=device, dtype=dtype)
        return self

    def _sliced(self, run: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        weight = next(self.vae.parameters())
        return torch.cat([run(part.to(weight)) for part in batch.split(SLICE_IMAGES)])


def autoencoder(shapes: Mapping[str, Sequence[int]]) -> AutoencoderKL:
    """An AutoencoderKL of the widths that these state-dict shapes (today's names) have.

    Raises:
        WeightsError: they are not those of such a VAE.
    """
    first = "encoder.down_blocks.0.resnets."
    try:
        channels = tuple(shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(BLOCKS))
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"not a VAE in diffusers' layout: {error} is missing among its {len(shapes)} keys. "
            "Use sd-vae-ft-mse's diffusion_pytorch_model.safetensors."
        ) from error
    return autoencoder_of(channels, sum(key.startswith(first) and key.endswith(".norm1.weight") for key in shapes))


def autoencoder_of(channels: tuple[int, ...], layers: int) -> AutoencoderKL:
    """A new AutoencoderKL: `channels` of its blocks from the outside in, `layers` in each."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError as error:
        raise DependencyError(f"diffusers cannot be imported ({error}): pip install -r requirements.txt") from error
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": LATENT_CHANNELS,
    }
    return AutoencoderKL(**settings)


def modern_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with the attention's old names (query, key, value, proj_attn) replaced by today's."""
    return {_modern(key): tensor for key, tensor in tensors.items()}


def _modern(key: str) -> str:
    module, _, parameter = key.rpartition(".")
    parent, _, name = module.rpartition(".")
    if ".attentions." not in key or name not in OLD_NAMES:
        return key
    return f"{parent}.{OLD_NAMES[name]}.{parameter}"
