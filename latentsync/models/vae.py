"""The VAE of Stable Diffusion 1.x, run by diffusers. In ComfyUI, `nodes/` uses ComfyUI's VAE instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError, cannot_import
from ..oom import BatchLimit
from .constants import LATENT_CHANNELS

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

BLOCKS = 4
GROUPS = 32  # groups in every group norm
MAX_CHANNELS = 1 << 12  # limit for the blocks of a file (sd-vae-ft-mse has at most 512)
SLICE_IMAGES = 2  # initial batch size. Larger batches use more memory and are not faster

# sd-vae-ft-mse was published before diffusers renamed the attention projections
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# CompVis numbers the decoder's blocks from the output, diffusers from the middle: ~ marks a number to reverse
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
    """The `VAE` protocol for diffusers' AutoencoderKL, on the device and in the dtype of its weights."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae: Any = vae  # diffusers' own annotations are wrong
        self._batch_limit = BatchLimit(SLICE_IMAGES, "the VAE")

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, R, R) in [-1, 1] -> unscaled posterior means (n, 4, R/8, R/8)."""
        return self._run(lambda batch: self.vae.encode(batch).latent_dist.mean, images)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled (n, 4, R/8, R/8) -> (n, 3, R, R), about [-1, 1]."""
        return self._run(lambda batch: self.vae.decode(batch).sample, latents)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> DiffusersVAE:
        """Move the weights in place. Unlike diffusers' own `to`, this method logs no warning about casts."""
        nn.Module.to(self.vae, device=device, dtype=dtype)
        return self

    def _run(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        inputs = inputs.to(next(self.vae.parameters()))
        return self._batch_limit.run(
            lambda batch_size: torch.cat([network(batch) for batch in inputs.split(batch_size)]), len(inputs)
        )


def autoencoder(shapes: Mapping[str, Sequence[int]]) -> Callable[[], AutoencoderKL]:
    """A factory of an AutoencoderKL for the shapes of a state dict with the names of current diffusers.

    Raises:
        DependencyError: diffusers cannot be imported.
        WeightsError: the shapes do not belong to a Stable Diffusion 1.x VAE.
    """
    try:
        channels = tuple(shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(BLOCKS))
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"The file is not a Stable Diffusion 1.x VAE. The file has {len(shapes)} weights, but the weights of the "
            "encoder are missing. Use diffusion_pytorch_model.safetensors of sd-vae-ft-mse."
        ) from error
    if not all(0 < width <= MAX_CHANNELS and width % GROUPS == 0 for width in channels):
        raise WeightsError(
            f"The file is not a Stable Diffusion 1.x VAE. The layers have the wrong numbers of "
            f"channels ({', '.join(map(str, channels))}). "
            "Use diffusion_pytorch_model.safetensors of sd-vae-ft-mse."
        )
    layers = sum(key.startswith("encoder.down_blocks.0.resnets.") and key.endswith(".norm1.weight") for key in shapes)
    return autoencoder_of(channels, layers)


def autoencoder_of(channels: tuple[int, ...], layers: int) -> Callable[[], AutoencoderKL]:
    """A factory of an AutoencoderKL.

    This function imports diffusers, because the factory runs on the meta device, where torch 2.6 cannot import
    diffusers.

    Args:
        channels: channels of its blocks, outermost first.
        layers: number of layers in each block.

    Raises:
        DependencyError: diffusers cannot be imported.
    """
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
    return partial(AutoencoderKL, **settings)


def diffusers_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of a VAE to the layout of current diffusers.

    Args:
        tensors: weights in this layout, also with the old names of the attention (query, key, value, proj_attn), or in
            the layout of CompVis's latent-diffusion, where the attention projections are 1x1 convolutions.
    """
    renamed = {_diffusers_name(key): tensor for key, tensor in tensors.items()}
    return {
        key: tensor.flatten(1) if tensor.ndim == 4 and _is_attention_projection(key) else tensor
        for key, tensor in renamed.items()
    }


def _diffusers_name(key: str) -> str:
    for pattern, name in COMPVIS_NAMES:
        key = re.sub(pattern, name, key)
    key = re.sub(r"(?<=^decoder\.up_blocks\.)~(\d)", lambda number: str(BLOCKS - 1 - int(number[1])), key)
    module, _, parameter = key.rpartition(".")
    parent, _, name = module.rpartition(".")
    if ".attentions." not in key or name not in OLD_NAMES:
        return key
    return f"{parent}.{OLD_NAMES[name]}.{parameter}"


def _is_attention_projection(key: str) -> bool:
    return ".attentions." in key and key.endswith(".weight") and ".group_norm." not in key
