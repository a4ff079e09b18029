"""Stable Diffusion 1.x's VAE, run by diffusers (inside ComfyUI its own takes this place)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError, cannot_import
from ..oom import BatchLimit
from .constants import LATENT_CHANNELS

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


BLOCKS = 4


GROUPS = 32  # that each norm divides its channels into


WIDEST = 1 << 12  # channels of a block that a file may ask for; sd-vae-ft-mse has 512


SLICE_IMAGES = 2  # in the VAE at once, at first: bounds its memory, and gains nothing beyond


# sd-vae-ft-mse was published before diffusers renamed the projections of its attention
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


# CompVis counts the decoder's blocks from the output, diffusers from the middle: ~ marks such a number
COMPVIS_NAMES = (
    (r"^encoder\.down\.(\d)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up\.(\d)\.block\.", r"decoder.up_blocks.~\1.resnets."),
    (r"^decoder\.up\.(\d)\.upsample\.", r"decoder.up_blocks.~\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
)


class DiffusersVAE:
    """A `types.Codec` over diffusers' AutoencoderKL; it runs in the device and dtype of its weights."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae: Any = vae  # diffusers' own annotations do not hold
        self._room = BatchLimit(SLICE_IMAGES, "images in the VAE")

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, R, R) in [-1, 1] -> unscaled posterior means (n, 4, R/8, R/8)."""
        return self._sliced(lambda part: self.vae.encode(part).latent_dist.mean, images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled (n, 4, R/8, R/8) -> (n, 3, R, R), about [-1, 1]."""
        return self._sliced(lambda part: self.vae.decode(part).sample, latents)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DiffusersVAE:
        """Moves the weights, in place as `nn.Module.to` does; diffusers' own warns of every cast."""
        nn.Module.to(self.vae, device=device, dtype=dtype)
        return self

    def _sliced(self, run: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        weight = next(self.vae.parameters())
        return self._room.run(lambda most: torch.cat([run(part.to(weight)) for part in batch.split(most)]), len(batch))


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
    if not all(0 < width <= WIDEST and width % GROUPS == 0 for width in channels):
        raise WeightsError(
            f"not a VAE of Stable Diffusion 1.x: its blocks have {', '.join(map(str, channels))} channels, which must "
            f"be multiples of {GROUPS} up to {WIDEST}. Use sd-vae-ft-mse's diffusion_pytorch_model.safetensors."
        )
    return autoencoder_of(channels, sum(key.startswith(first) and key.endswith(".norm1.weight") for key in shapes))


def autoencoder_of(channels: tuple[int, ...], layers: int) -> AutoencoderKL:
    """A new AutoencoderKL: `channels` of its blocks from the outside in, `layers` in each."""
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError as error:
        raise cannot_import("diffusers", "diffusers>=0.32", error) from error
    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": LATENT_CHANNELS,
    }
    return AutoencoderKL(**settings)


def diffusers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in diffusers' layout of today.

    Args:
        tensors: in that layout, with the attention's old names (query, key, value, proj_attn) or today's; or in the
            original layout of CompVis's latent-diffusion, where the attention's projections are 1x1 convolutions.
    """
    named = {_modern(key): tensor for key, tensor in tensors.items()}
    return {key: tensor.flatten(1) if tensor.ndim == 4 and _projects(key) else tensor for key, tensor in named.items()}


def _modern(key: str) -> str:
    for pattern, name in COMPVIS_NAMES:
        key = re.sub(pattern, name, key)
    key = re.sub(r"(?<=^decoder\.up_blocks\.)~(\d)", lambda level: str(BLOCKS - 1 - int(level[1])), key)
    module, _, parameter = key.rpartition(".")
    parent, _, name = module.rpartition(".")
    if ".attentions." not in key or name not in OLD_NAMES:
        return key
    return f"{parent}.{OLD_NAMES[name]}.{parameter}"


def _projects(key: str) -> bool:
    return ".attentions." in key and key.endswith(".weight") and ".group_norm." not in key
