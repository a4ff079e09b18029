"""LatentSync's UNet: Stable Diffusion 1.5 with audio for text, and a motion module after every layer.

Follows ByteDance's latentsync/models/unet.py (commit a229c39); keys and shapes are those of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError
from .constants import AUDIO_WIDTH, LATENT_CHANNELS
from .layers import (
    RESNET_EPS,
    TIME_WIDTHS,
    AttentionFn,
    Context,
    Downsample,
    LayerConfig,
    MotionModule,
    ResNet,
    SpatialBlock,
    SpatialTransformer,
    TimeEmbedding,
    Upsample,
    attention,
    fold,
    norm_over_clip,
    unfold,
)
from .protocols import AudioKV, Operations

WIDEST = 1 << 13  # channels of a block that a file may ask for; the released models have 1280


INPUT_CHANNELS = 3 * LATENT_CHANNELS + 1  # noisy latents, mask, masked latents, reference latents


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The widths of the network; the defaults are those of both released models.

    channels: of each block, from the outside in; all but the innermost have attention.
    layers: in each down block; an up block has one more.
    positions: the longest clip, in frames.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    audio_width: int = AUDIO_WIDTH
    in_channels: int = INPUT_CHANNELS
    out_channels: int = LATENT_CHANNELS
    positions: int = 24

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> UNetConfig:
        """The widths of the network that has these state-dict shapes; all else is the same in every LatentSync UNet.

        Raises WeightsError if the keys are not those of a LatentSync UNet.
        """
        try:
            widths = tuple(shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(4))
        except (KeyError, IndexError) as error:
            raise WeightsError(
                f"not a LatentSync UNet: {error} is missing among its {len(shapes)} keys. "
                "Choose a latentsync_unet file of version 1.5 or 1.6."
            ) from error
        config = cls(widths)
        if not all(0 < width <= WIDEST and width % config.groups == 0 for width in widths):
            raise WeightsError(
                f"not a LatentSync UNet: its blocks have {', '.join(map(str, widths))} channels, which must be "
                f"multiples of {config.groups} up to {WIDEST}. Choose a latentsync_unet file of version 1.5 or 1.6."
            )
        return config


class UNet(nn.Module):
    """Predicts the noise in the latents of a clip of face crops, given its audio.

    Args:
        config: the widths; by default those of both released models.
        ops: namespace of every layer that holds weights; ComfyUI's cast to the input's dtype and device.
        attention: computes attention over packed heads, as `layers.attend`.
    """

    def __init__(
        self, config: UNetConfig | None = None, ops: Operations = nn, attention: AttentionFn = attention
    ) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        widths = config.channels
        kit = LayerConfig(
            ops=ops,
            attend=attention,
            heads=config.heads,
            groups=config.groups,
            time_width=TIME_WIDTHS * widths[0],
            audio_width=config.audio_width,
            positions=config.positions,
        )
        self.conv_in = ops.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], kit)
        self.down_blocks = nn.ModuleList(down_blocks(config, kit))
        self.mid_block = MiddleBlock(widths[-1], kit)
        self.up_blocks = nn.ModuleList(up_blocks(config, kit))
        self.conv_norm_out = kit.norm(widths[0], RESNET_EPS)
        self.conv_out = ops.Conv2d(widths[0], config.out_channels, 3, padding=1)
        for place, block in enumerate(self.spatial_blocks):
            block.place = place

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:
        """What a batch's audio (clips, frames, 50, 384) is to `forward`: the same at every step."""
        tokens = audio.flatten(0, 1)
        return [block.attn2.pairs(tokens) for block in self.spatial_blocks]

    def forward(
        self,
        x: Tensor,
        timestep: float,
        audio_kv: AudioKV | None,
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """One pass, whole or shallow (DeepCache, branch 0: arXiv 2312.00858).

        Args:
            x: (clips, 13, frames, h, w); noisy latents, mask, masked latents, reference latents.
            timestep: 0 to 999.
            audio_kv: the clips' audio, from `hear`; None is silence (audio of zeros).
            cached_features: what an earlier pass over as many clips returned; with it only the outermost layers run.
            do_cfg: compute each clip twice: first all without audio, then all with it.

        Returns:
            The noise (clips, or twice as many, 4, frames, h, w), and the state that entered the last layer.
        """
        clips = len(x) * (1 + do_cfg)
        silent = clips if audio_kv is None else clips - len(x)
        time = self.time_embedding(torch.tensor([timestep], device=x.device), x.dtype)
        context = Context(time, audio_kv, x.shape[2], clips, silent)
        outer = self.conv_in(fold(x))
        if cached_features is None:
            cached_features = self.depths(outer, context)
        hidden = self.outermost.layer(-1, torch.cat([cached_features, context.parted(outer)], dim=1), context)
        hidden = F.silu(norm_over_clip(self.conv_norm_out, hidden, context.frames), inplace=True)
        return unfold(self.conv_out(hidden), clips), cached_features

    def depths(self, outer: Tensor, context: Context) -> Tensor:
        """Everything between the first convolution and the last layer."""
        skips = [outer]
        for block in self.down_blocks:
            skips += block(skips[-1], context)
        hidden = self.mid_block(skips[-1], context)
        for block in self.up_blocks[:-1]:
            hidden = block(hidden, skips, context)
        return self.outermost.climb(hidden, skips, context, self.config.layers)

    @property
    def spatial_blocks(self) -> list[SpatialBlock]:
        """Of every transformer, in the order of their `place`."""
        return [module for module in self.modules() if isinstance(module, SpatialBlock)]

    @property
    def outermost(self) -> UpBlock:
        """The last up block; it has one layer more than the config's."""
        return cast("UpBlock", self.up_blocks[-1])


def down_blocks(config: UNetConfig, kit: LayerConfig) -> list[DownBlock]:
    """From the outside in; the innermost has neither attention nor a downsampling."""
    widths = config.channels
    last = len(widths) - 1
    return [
        DownBlock(
            [(widths[max(i - 1, 0)] if layer == 0 else width, width) for layer in range(config.layers)],
            kit,
            attends=i != last,
            resamples=i != last,
        )
        for i, width in enumerate(widths)
    ]


def up_blocks(config: UNetConfig, kit: LayerConfig) -> list[UpBlock]:
    """Each layer takes one skip: those of the mirrored down block, then the one that entered it."""
    widths = config.channels[::-1]
    last = len(widths) - 1
    blocks: list[UpBlock] = []
    for i, width in enumerate(widths):
        skips = [width] * config.layers + [widths[min(i + 1, last)]]
        states = [widths[max(i - 1, 0)]] + [width] * config.layers
        layers = [(state + skip, width) for state, skip in zip(states, skips, strict=True)]
        blocks.append(UpBlock(layers, kit, attends=i != 0, resamples=i != last))
    return blocks


class Block(nn.Module):
    """Layers of one width: each a resnet, an attention and a motion module."""

    def __init__(self, layers: Sequence[tuple[int, int]], kit: LayerConfig, *, attends: bool) -> None:
        super().__init__()
        width = layers[-1][1]
        self.resnets = nn.ModuleList(ResNet(width_in, width, kit) for width_in, width in layers)
        self.attentions = nn.ModuleList(SpatialTransformer(width, kit) for _ in layers if attends)
        self.motion_modules = nn.ModuleList(MotionModule(width, kit) for _ in layers)

    def layer(self, index: int, x: Tensor, context: Context) -> Tensor:
        x = self.resnets[index](x, context)
        if len(self.attentions):
            x = self.attentions[index](x, context)
        return self.motion_modules[index](x, context)


class DownBlock(Block):
    """Layers whose every state is a skip for the mirrored up block; all but the innermost block then halve the picture.

    Args:
        layers: width in and width of each.
        attends: whether the layers have attention.
        resamples: whether a downsampling follows.
    """

    def __init__(self, layers: Sequence[tuple[int, int]], kit: LayerConfig, *, attends: bool, resamples: bool) -> None:
        super().__init__(layers, kit, attends=attends)
        self.downsamplers = nn.ModuleList(Downsample(layers[-1][1], kit) for _ in range(resamples))

    def forward(self, x: Tensor, context: Context) -> list[Tensor]:
        """The state after each layer, and after the downsampling."""
        states: list[Tensor] = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, context)
            states.append(x)
        for downsample in self.downsamplers:
            states.append(downsample(x))
        return states


class UpBlock(Block):
    """Layers that each take the state before and one skip; all but the outermost block then double the picture.

    Args:
        layers: width in (with the skip's) and width of each.
        attends: whether the layers have attention.
        resamples: whether an upsampling follows.
    """

    def __init__(self, layers: Sequence[tuple[int, int]], kit: LayerConfig, *, attends: bool, resamples: bool) -> None:
        super().__init__(layers, kit, attends=attends)
        self.upsamplers = nn.ModuleList(Upsample(layers[-1][1], kit) for _ in range(resamples))

    def forward(self, x: Tensor, skips: list[Tensor], context: Context) -> Tensor:
        x = self.climb(x, skips, context, len(self.resnets))
        for upsample in self.upsamplers:
            x = upsample(x)
        return x

    def climb(self, x: Tensor, skips: list[Tensor], context: Context, count: int) -> Tensor:
        """The first `count` layers; each takes its skip off the end of `skips`."""
        for index in range(count):
            x = self.layer(index, torch.cat([x, context.parted(skips.pop())], dim=1), context)
        return x


class MiddleBlock(nn.Module):
    """The one block without motion modules."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResNet(width, width, kit) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialTransformer(width, kit)])

    def forward(self, x: Tensor, context: Context) -> Tensor:
        enter, leave = self.resnets
        return leave(self.attentions[0](enter(x, context), context), context)
