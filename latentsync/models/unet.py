"""LatentSync's UNet: Stable Diffusion 1.5 with audio in place of text, and a motion module after every layer.

Follows ByteDance's latentsync/models/unet.py (commit a229c39). Keys and shapes match ByteDance's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from .constants import AUDIO_WIDTH, LATENT_CHANNELS
from .layers import (
    RESNET_EPS,
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
    norm_over_frames,
    silu,
    unfold,
)
from .protocols import AudioKV, Operations

MAX_CHANNELS = 1 << 13  # limit for the blocks of a file. The released models have at most 1280
INPUT_CHANNELS = 3 * LATENT_CHANNELS + 1  # noisy latents, mask, masked latents, reference latents
TIME_EXPANSION = 4  # width of the time embedding, in multiples of the first block's width


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The dimensions of the network. The defaults match both released models.

    channels: channel count of each block, outermost first. All blocks except the innermost have attention.
    layers: number of layers in each down block. An up block has one more layer.
    max_frames: longest window, in frames.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    heads: int = 8
    groups: int = 32
    audio_width: int = AUDIO_WIDTH
    in_channels: int = INPUT_CHANNELS
    out_channels: int = LATENT_CHANNELS
    max_frames: int = 24

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> UNetConfig:
        """Read the config from the shapes of a state dict. Only the channels vary.

        Raises:
            WeightsError: the state dict does not belong to a LatentSync UNet.
        """
        try:
            channels = tuple(shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(4))
        except (KeyError, IndexError) as error:
            raise WeightsError(
                f"The file is not a LatentSync UNet. The file has {len(shapes)} weights, but the weights of the first "
                "layers are missing. Choose a latentsync_unet file of version 1.5 or 1.6."
            ) from error
        config = cls(channels)
        if not all(0 < width <= MAX_CHANNELS and width % config.groups == 0 for width in channels):
            raise WeightsError(
                f"The file is not a LatentSync UNet. The layers have the wrong numbers of "
                f"channels ({', '.join(map(str, channels))}). "
                "Choose a latentsync_unet file of version 1.5 or 1.6."
            )
        return config


class UNet(nn.Module):
    """Predicts the noise in the latents of face crops from their audio, for windows of frames.

    Args:
        config: the dimensions. The default matches both released models.
        operations: the classes of the layers with weights. ComfyUI's layers cast their weights to the input's dtype
            and device.
        attention: computes attention over packed heads, see `layers.attention`.
    """

    def __init__(
        self, config: UNetConfig | None = None, operations: Operations = nn, attention: AttentionFn = attention
    ) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        widths = config.channels
        layer_config = LayerConfig(
            operations=operations,
            attention=attention,
            heads=config.heads,
            groups=config.groups,
            time_width=TIME_EXPANSION * widths[0],
            audio_width=config.audio_width,
            max_frames=config.max_frames,
        )
        self.conv_in = operations.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], layer_config)
        self.down_blocks = nn.ModuleList(down_blocks(config, layer_config))
        self.mid_block = MiddleBlock(widths[-1], layer_config)
        self.up_blocks = nn.ModuleList(up_blocks(config, layer_config))
        self.conv_norm_out = layer_config.norm(widths[0], RESNET_EPS)
        self.conv_out = operations.Conv2d(widths[0], config.out_channels, 3, padding=1)
        for layer_index, block in enumerate(self.spatial_blocks):
            block.layer_index = layer_index

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:
        """The cross-attention keys and values of audio (windows, frames, 50, 384). The result does not depend on the
        timestep. Call this once for each batch of windows, and pass the result to `forward` at every step.
        """
        tokens = audio.flatten(0, 1)
        return [block.attn2.kv(tokens) for block in self.spatial_blocks]

    def forward(
        self,
        x: Tensor,
        timestep: float,
        audio_kv: AudioKV | None,
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """One pass, full or shallow (DeepCache, branch 0: arXiv 2312.00858).

        Args:
            x: (windows, 13, frames, h, w): noisy latents, mask, masked latents, reference latents.
            timestep: 0 to 999.
            audio_kv: result of `precompute_audio_kv`. None: silence (audio embeddings of zero).
            cached_features: second result of an earlier pass with the same batch. With these features, only the last
                layer runs.
            do_cfg: use classifier-free guidance: compute all windows without audio, then all windows with audio.

        Returns:
            The noise (batch, 4, frames, h, w), and the features that entered the last layer.
        """
        batch = len(x) * (1 + do_cfg)
        num_uncond = batch if audio_kv is None else batch - len(x)
        time = self.time_embedding(torch.full((1,), timestep, device=x.device), x.dtype)
        context = Context(time, audio_kv, x.shape[2], batch, num_uncond)
        stem = self.conv_in(fold(x))
        if cached_features is None:
            cached_features = self.trunk(stem, context)
        hidden = torch.cat([cached_features, context.expand_for_cfg(stem)], dim=1)
        hidden = self.last_up_block.layer(-1, hidden, context)
        hidden = silu(norm_over_frames(self.conv_norm_out, hidden, context.frames))
        return unfold(self.conv_out(hidden), batch), cached_features

    def trunk(self, stem: Tensor, context: Context) -> Tensor:
        """Run all layers between the first convolution, which returned `stem`, and the last layer."""
        skips = [stem]
        for block in self.down_blocks:
            skips += block(skips[-1], context)
        hidden = self.mid_block(skips[-1], context)
        for block in self.up_blocks[:-1]:
            hidden = block(hidden, skips, context)
        return self.last_up_block.forward_layers(hidden, skips, context, self.config.layers)

    @property
    def spatial_blocks(self) -> list[SpatialBlock]:
        """The blocks of all spatial transformers, in the order of `layer_index`."""
        return [module for module in self.modules() if isinstance(module, SpatialBlock)]

    @property
    def last_up_block(self) -> UpBlock:
        return cast("UpBlock", self.up_blocks[-1])


def down_blocks(config: UNetConfig, layer_config: LayerConfig) -> list[DownBlock]:
    """The down blocks, outermost first. The innermost block has neither attention nor downsampling."""
    widths = config.channels
    last = len(widths) - 1
    return [
        DownBlock(
            [(widths[max(i - 1, 0)] if layer == 0 else width, width) for layer in range(config.layers)],
            layer_config,
            attends=i != last,
            resamples=i != last,
        )
        for i, width in enumerate(widths)
    ]


def up_blocks(config: UNetConfig, layer_config: LayerConfig) -> list[UpBlock]:
    """The up blocks, innermost first.

    Each layer takes one skip: the outputs of the mirrored down block in reverse order, then the input of that block.
    """
    widths = config.channels[::-1]
    last = len(widths) - 1
    blocks: list[UpBlock] = []
    for i, width in enumerate(widths):
        skip_widths = [width] * config.layers + [widths[min(i + 1, last)]]
        hidden_widths = [widths[max(i - 1, 0)]] + [width] * config.layers
        layers = [(hidden + skip, width) for hidden, skip in zip(hidden_widths, skip_widths, strict=True)]
        blocks.append(UpBlock(layers, layer_config, attends=i != 0, resamples=i != last))
    return blocks


class Block(nn.Module):
    """Layers with the same channel count. Each layer has a residual block, an attention and a motion module.

    Args:
        layers: input and output channel count of each layer.
        attends: whether the layers have attention.
    """

    def __init__(self, layers: Sequence[tuple[int, int]], config: LayerConfig, *, attends: bool) -> None:
        super().__init__()
        width = layers[-1][1]
        self.resnets = nn.ModuleList(ResNet(width_in, width, config) for width_in, width in layers)
        self.attentions = nn.ModuleList(SpatialTransformer(width, config) for _ in layers if attends)
        self.motion_modules = nn.ModuleList(MotionModule(width, config) for _ in layers)

    def layer(self, index: int, x: Tensor, context: Context) -> Tensor:
        x = self.resnets[index](x, context)
        if len(self.attentions):
            x = self.attentions[index](x, context)
        return self.motion_modules[index](x, context)


class DownBlock(Block):
    """Layers whose outputs are skips for the mirrored up block. A downsampling follows, except in the innermost block.

    Args:
        resamples: whether a downsampling follows.
    """

    def __init__(
        self, layers: Sequence[tuple[int, int]], config: LayerConfig, *, attends: bool, resamples: bool
    ) -> None:
        super().__init__(layers, config, attends=attends)
        self.downsamplers = nn.ModuleList(Downsample(layers[-1][1], config) for _ in range(resamples))

    def forward(self, x: Tensor, context: Context) -> list[Tensor]:
        """The output of each layer, and of the downsampling."""
        outputs: list[Tensor] = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, context)
            outputs.append(x)
        for downsample in self.downsamplers:
            outputs.append(downsample(x))
        return outputs


class UpBlock(Block):
    """Layers that each take the hidden state and one skip. An upsampling follows, except in the outermost block.

    Args:
        layers: input channel count, including the skip, and output channel count of each layer.
        resamples: whether an upsampling follows.
    """

    def __init__(
        self, layers: Sequence[tuple[int, int]], config: LayerConfig, *, attends: bool, resamples: bool
    ) -> None:
        super().__init__(layers, config, attends=attends)
        self.upsamplers = nn.ModuleList(Upsample(layers[-1][1], config) for _ in range(resamples))

    def forward(self, x: Tensor, skips: list[Tensor], context: Context) -> Tensor:
        x = self.forward_layers(x, skips, context, len(self.resnets))
        for upsample in self.upsamplers:
            x = upsample(x)
        return x

    def forward_layers(self, x: Tensor, skips: list[Tensor], context: Context, count: int) -> Tensor:
        """Run the first `count` layers. Each layer removes its skip from the end of `skips`."""
        for index in range(count):
            x = self.layer(index, torch.cat([x, context.expand_for_cfg(skips.pop())], dim=1), context)
        return x


class MiddleBlock(nn.Module):
    """The innermost block: two residual blocks with an attention between them, and no motion modules."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResNet(width, width, config) for _ in range(2))
        self.attentions = nn.ModuleList([SpatialTransformer(width, config)])

    def forward(self, x: Tensor, context: Context) -> Tensor:
        first, second = self.resnets
        return second(self.attentions[0](first(x, context), context), context)
