"""The layers of the UNet: residual, spatial transformer, motion module.

Between layers the frames of all clips are folded into the batch: (batch * frames, channels, height, width).
Modules are nested and named as in the official state dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .protocols import AudioKV, Operations

AttentionFn = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # query, key, value, heads: see `attend`


TIME_WIDTHS = 4  # the time embedding is so many times as wide as the first block


MLP_WIDTHS = 4


ATTENTION_WIDTHS = 4  # queries, keys, values and what comes of them


CPU_PART_BYTES = 24 * 2**20  # inside a layer at once; beyond, a processor gets every page anew for each result


CARD_PART_BYTES = 256 * 2**20  # elsewhere each part costs launches, and the way of weights that are not on the card


RESNET_EPS = 1e-5


TRANSFORMER_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What every layer is built from.

    ops: where layers with weights come from.
    attend: computes attention.
    heads, groups: of every attention and every group norm.
    time_width: of the time embedding.
    audio_width: of one audio token.
    positions: the longest clip that the motion modules know, in frames.
    """

    ops: Operations
    attend: AttentionFn
    heads: int
    groups: int
    time_width: int
    audio_width: int
    positions: int

    def norm(self, width: int, eps: float) -> nn.GroupNorm:
        return self.ops.GroupNorm(self.groups, width, eps=eps)


@dataclass(frozen=True, slots=True)
class Context:
    """What steers a pass through the layers.

    A do_cfg pass computes every clip twice, without and with its audio. Both are the same up to the first audio
    attention, so that until then the batch holds each clip once; after it, the silent clips and then the audio_kv ones.

    time: (1, time width), the same for every clip.
    audio_kv: the audio, see `Heard`; None is silence.
    frames: of each clip.
    clips: in the batch, once silent and audio_kv ones have parted.
    silent: of them, how many (the first) hear nothing.
    """

    time: Tensor
    audio_kv: AudioKV | None
    frames: int
    clips: int
    silent: int

    def parted(self, x: Tensor) -> Tensor:
        """`x` (clips * frames, ...) with the silent and the audio_kv clips apart: itself where they are already."""
        missing = self.clips * self.frames - len(x)
        return torch.cat([x[:missing], x]) if missing else x


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention over packed heads: (n, tokens, heads * width) each -> the query's shape."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def fold(x: Tensor) -> Tensor:
    """(batch, channels, frames, h, w) -> (batch * frames, channels, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold(x: Tensor, batch: int) -> Tensor:
    """(batch * frames, channels, h, w) -> (batch, channels, frames, h, w)."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)


def norm_over_clip(norm: nn.Module, x: Tensor, frames: int) -> Tensor:
    """Group norm whose statistics span all frames of a clip. x: (clips * frames, channels, h, w)."""
    return fold(norm(unfold(x, len(x) // frames)))


def chunked(work: Callable[..., Tensor], x: Tensor, *others: Tensor, wider: int) -> Tensor:
    """`work` on some rows (the first dimension) after the others: none of them needs another's.

    Args:
        x: of the shape that `work` returns; `others` have as many rows.
        wider: how many times as wide as `x` the work is inside.
    """
    most = CPU_PART_BYTES if x.device.type == "cpu" else CARD_PART_BYTES
    count = -(-wider * x.numel() * x.element_size() // most)  # nbytes stops torch.compile
    if count < 2:
        return work(x, *others)
    made = torch.empty_like(x)
    parts = zip(*[tensor.chunk(count) for tensor in (x, *others)], strict=True)
    for result, part in zip(made.chunk(count), parts, strict=True):
        result.copy_(work(*part))
    return made


class ResNet(nn.Module):
    """Two convolutions, the time between them, around a shortcut."""

    def __init__(self, width_in: int, width: int, kit: LayerConfig) -> None:
        super().__init__()
        ops = kit.ops
        self.norm1 = kit.norm(width_in, RESNET_EPS)
        self.conv1 = ops.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj = ops.Linear(kit.time_width, width)
        self.norm2 = kit.norm(width, RESNET_EPS)
        self.conv2 = ops.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = ops.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        hidden = self.conv1(F.silu(norm_over_clip(self.norm1, x, context.frames), inplace=True))
        hidden += self.time_emb_proj(F.silu(context.time))[:, :, None, None]
        hidden = F.silu(norm_over_clip(self.norm2, hidden, context.frames), inplace=True)
        return self.conv2(hidden).add_(self.conv_shortcut(x))


class Attention(nn.Module):
    """Multi-head attention of (n, tokens, width) to (n, others, source width)."""

    def __init__(self, width: int, source_width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.heads, self.attend = kit.heads, kit.attend
        self.to_q = kit.ops.Linear(width, width, bias=False)
        self.to_k = kit.ops.Linear(source_width, width, bias=False)
        self.to_v = kit.ops.Linear(source_width, width, bias=False)
        self.to_out = nn.Sequential(kit.ops.Linear(width, width))

    def pairs(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values: (n, others, width) each."""
        return self.to_k(source), self.to_v(source)

    def attended(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.to_out(self.attend(self.to_q(x), key, value, self.heads))


class SelfAttention(Attention):
    """Tokens attend to each other. (n, tokens, width) -> the same."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__(width, width, kit)

    def forward(self, x: Tensor) -> Tensor:
        return chunked(lambda part: self.attended(part, *self.pairs(part)), x, wider=ATTENTION_WIDTHS)


class AudioAttention(Attention):
    """Pixels attend to the audio of their frame, whose keys and values were made before."""

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return chunked(self.attended, x, key, value, wider=ATTENTION_WIDTHS)

    def silence(self, x: Tensor) -> Tensor:
        """What audio of zeros gives to every pixel, (1, 1, width): its values are zero, which leaves the bias."""
        return self.to_out(x.new_zeros(1, 1, x.shape[-1]))


class GatedGelu(nn.Module):
    """Half of a projection gated by the GELU of the other (arXiv 2002.05202). (..., width in) -> (..., width)."""

    def __init__(self, width_in: int, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.proj = kit.ops.Linear(width_in, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)


class FeedForward(nn.Module):
    """The transformers' MLP, four widths wide inside. (..., width) -> (..., width)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        inner = MLP_WIDTHS * width
        # the official layout keeps a dropout's place between the two
        self.net = nn.Sequential(GatedGelu(width, inner, kit), nn.Identity(), kit.ops.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return chunked(self.net, x, wider=2 * MLP_WIDTHS)


class SpatialBlock(nn.Module):
    """Pixels of one frame attend to each other, then to that frame's audio."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.norm1 = kit.ops.LayerNorm(width)
        self.attn1 = SelfAttention(width, kit)
        self.norm2 = kit.ops.LayerNorm(width)
        self.attn2 = AudioAttention(width, kit.audio_width, kit)
        self.norm3 = kit.ops.LayerNorm(width)
        self.ff = FeedForward(width, kit)
        self.place = 0  # among the UNet's, in order

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = context.parted(self.attn1(self.norm1(x)).add_(x))
        quiet = context.silent * context.frames
        if quiet:
            x[:quiet] += self.attn2.silence(x)
        if context.audio_kv is not None:
            x[quiet:] += self.attn2(self.norm2(x[quiet:]), *context.audio_kv[self.place])
        return self.ff(self.norm3(x)).add_(x)


class SpatialTransformer(nn.Module):
    """Stable Diffusion's transformer over one frame's pixels, as a residual. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.norm = kit.norm(width, TRANSFORMER_EPS)
        self.proj_in = kit.ops.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(width, kit)])
        self.proj_out = kit.ops.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return context.parted(x) + self.proj_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


class PositionTable(nn.Module):
    """Adds to each frame the sinusoids of its place in the clip. x: (n, frames, width)."""

    pe: Tensor

    def __init__(self, width: int, positions: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoid_table(positions, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]].to(x)


def sinusoid_table(positions: int, width: int) -> Tensor:
    """float32 (1, positions, width): sine and cosine interleaved ("Attention is all you need", 3.5)."""
    # never on the meta device, where a network is built to be filled: torch would spend seconds on its meta arithmetic
    even, place = torch.arange(0, width, 2, device="cpu"), torch.arange(positions, device="cpu")
    angles = place[:, None] * torch.exp(even * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


class TemporalAttention(SelfAttention):
    """Frames attend to each other at each pixel. x: (pixels, frames, width)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__(width, kit)
        self.pos_encoder = PositionTable(width, kit.positions)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pos_encoder(x))


class MotionBlock(nn.Module):
    """Two temporal attentions and an MLP, each as a residual. x: (pixels, frames, width)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(width, kit) for _ in range(2))
        self.norms = nn.ModuleList(kit.ops.LayerNorm(width) for _ in range(2))
        self.ff = FeedForward(width, kit)
        self.ff_norm = kit.ops.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            x = attention(norm(x)).add_(x)
        return self.ff(self.ff_norm(x)).add_(x)


class MotionTransformer(nn.Module):
    """AnimateDiff's transformer over a clip's frames at each pixel, as a residual. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.norm = kit.norm(width, TRANSFORMER_EPS)
        self.proj_in = kit.ops.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([MotionBlock(width, kit)])
        self.proj_out = kit.ops.Linear(width, width)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        # (clips * frames, c, h, w) -> (clips, h, w, frames, c): once, for every layer of the block
        tokens = self.proj_in(unfold(self.norm(x), context.clips).permute(0, 3, 4, 2, 1).flatten(0, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        by_pixel = self.proj_out(tokens).unflatten(0, (context.clips, *x.shape[2:]))
        return (x.unflatten(0, (context.clips, -1)) + by_pixel.permute(0, 3, 4, 1, 2)).flatten(0, 1)


class MotionModule(nn.Module):
    """AnimateDiff's motion module: temporal attention at each pixel, as a residual."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.temporal_transformer = MotionTransformer(width, kit)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.temporal_transformer(x, context)


class Downsample(nn.Module):
    """Halves height and width with a strided convolution. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.conv = kit.ops.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then a convolution. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.conv = kit.ops.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class TimeEmbedding(nn.Module):
    """Diffusion timesteps (batch,) to (batch, time width)."""

    def __init__(self, width: int, kit: LayerConfig) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = kit.ops.Linear(width, kit.time_width)
        self.linear_2 = kit.ops.Linear(kit.time_width, kit.time_width)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10_000.0) / half))
        angles = timesteps.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        return self.linear_2(F.silu(self.linear_1(waves)))
