"""The layers of the UNet: residual block, spatial transformer, motion module.

Between layers, the batch dimension contains the frames of all windows: (batch * frames, channels, height, width).
The nesting and the names of the modules follow the official state dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .protocols import AudioKV, Operations

AttentionFn = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # query, key, value, heads: see `attention`

RESNET_EPS = 1e-5
TRANSFORMER_EPS = 1e-6

# memory of a layer's intermediate tensors, in multiples of its input
MLP_EXPANSION = 4
ATTENTION_EXPANSION = 4  # queries, keys, values and the result

CPU_CHUNK_BYTES = 24 * 2**20  # larger buffers go back to the system after each use, and every page faults again
GPU_CHUNK_BYTES = 256 * 2**20  # smaller chunks cost kernel launches and, with offloaded weights, more transfers


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """The configuration that all layers share.

    operations: the classes of the layers with weights.
    attention: computes attention over packed heads.
    heads: number of heads in every attention.
    groups: number of groups in every group norm.
    time_width: width of the time embedding.
    audio_width: width of one audio token.
    max_frames: longest window that the motion modules accept.
    """

    operations: Operations
    attention: AttentionFn
    heads: int
    groups: int
    time_width: int
    audio_width: int
    max_frames: int

    def norm(self, width: int, eps: float) -> nn.GroupNorm:
        return self.operations.GroupNorm(self.groups, width, eps=eps)


@dataclass(frozen=True, slots=True)
class Context:
    """Conditioning of one forward pass.

    With classifier-free guidance, the UNet computes every window twice, without audio and with audio. Both copies are
    equal before the first audio attention, so until then the batch contains each window once. After this attention, the
    unconditional samples come first, then the conditional samples.

    time: time embedding (1, time width), the same for every sample.
    audio_kv: audio keys and values. None is silence.
    frames: number of frames in each window.
    batch: batch size after the CFG split.
    num_uncond: number of leading unconditional samples.
    """

    time: Tensor
    audio_kv: AudioKV | None
    frames: int
    batch: int
    num_uncond: int

    def expand_for_cfg(self, x: Tensor) -> Tensor:
        """Fill the batch: put copies of the windows of `x` in front of `x`. Return `x` itself if the batch is full."""
        missing = self.batch * self.frames - len(x)
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


def norm_over_frames(norm: nn.Module, x: Tensor, frames: int) -> Tensor:
    """Group norm with statistics over all frames of a window. x: (batch * frames, channels, h, w).

    The function copies its input and its output. `torch.var_mean` needs no copies, but takes 1.5 times as long on a
    CPU.
    """
    return fold(norm(unfold(x, len(x) // frames)))


def silu(x: Tensor) -> Tensor:
    """SiLU in place. In training, autograd needs the input, so the result is a copy."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def chunked(function: Callable[..., Tensor], x: Tensor, *others: Tensor, expansion: int) -> Tensor:
    """Apply `function` to chunks of rows (the first dimension), to limit its memory. Rows must be independent.

    A training pass uses no chunks, because autograd keeps every intermediate tensor.

    Args:
        x: the first argument, which has the shape of the result.
        others: further arguments with the same number of rows.
        expansion: memory that `function` needs, in multiples of `x`.
    """
    max_bytes = CPU_CHUNK_BYTES if x.device.type == "cpu" else GPU_CHUNK_BYTES
    count = -(-expansion * x.numel() * x.element_size() // max_bytes)
    if count < 2 or torch.is_grad_enabled():
        return function(x, *others)
    result = torch.empty_like(x)
    chunks = zip(*[tensor.chunk(count) for tensor in (result, x, *others)], strict=True)
    for target, *arguments in chunks:
        target.copy_(function(*arguments))
    return result


class ResNet(nn.Module):
    """Two convolutions with the time embedding added between them, and a shortcut around both."""

    def __init__(self, width_in: int, width: int, config: LayerConfig) -> None:
        super().__init__()
        ops = config.operations
        self.norm1 = config.norm(width_in, RESNET_EPS)
        self.conv1 = ops.Conv2d(width_in, width, 3, padding=1)
        self.time_emb_proj = ops.Linear(config.time_width, width)
        self.norm2 = config.norm(width, RESNET_EPS)
        self.conv2 = ops.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = ops.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, context: Context) -> Tensor:
        hidden = self.conv1(silu(norm_over_frames(self.norm1, x, context.frames)))
        hidden += self.time_emb_proj(F.silu(context.time))[:, :, None, None]
        hidden = silu(norm_over_frames(self.norm2, hidden, context.frames))
        return self.conv2(hidden).add_(self.conv_shortcut(x))


class Attention(nn.Module):
    """Multi-head attention from (n, tokens, width) to (n, source tokens, source width)."""

    def __init__(self, width: int, source_width: int, config: LayerConfig) -> None:
        super().__init__()
        ops = config.operations
        self.heads, self.attention = config.heads, config.attention
        self.to_q = ops.Linear(width, width, bias=False)
        self.to_k = ops.Linear(source_width, width, bias=False)
        self.to_v = ops.Linear(source_width, width, bias=False)
        self.to_out = nn.Sequential(ops.Linear(width, width))

    def kv(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values: (n, source tokens, width) each."""
        return self.to_k(source), self.to_v(source)

    def attend(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.to_out(self.attention(self.to_q(x), key, value, self.heads))


class SelfAttention(Attention):
    """Tokens attend to each other. (n, tokens, width) -> the same shape."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__(width, width, config)

    def forward(self, x: Tensor) -> Tensor:
        return chunked(lambda rows: self.attend(rows, *self.kv(rows)), x, expansion=ATTENTION_EXPANSION)


class AudioAttention(Attention):
    """Pixels attend to the audio of their frame. The keys and values are precomputed."""

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return chunked(self.attend, x, key, value, expansion=ATTENTION_EXPANSION)

    def uncond(self, x: Tensor) -> Tensor:
        """Cross-attention output for zero audio embeddings: V = 0, so only the output bias remains. (1, 1, width)."""
        return self.to_out(x.new_zeros(1, 1, x.shape[-1]))


class GatedGelu(nn.Module):
    """One half of a projection, gated by the GELU of the other (arXiv 2002.05202). (..., width in) -> (..., width)."""

    def __init__(self, width_in: int, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.proj = config.operations.Linear(width_in, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        gate = F.gelu(gate)
        return gate * value if torch.is_grad_enabled() else gate.mul_(value)


class FeedForward(nn.Module):
    """The MLP of a transformer, with a hidden layer that is four times as wide. (..., width) -> (..., width)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        inner = MLP_EXPANSION * width
        # Identity replaces the dropout of the official layout
        self.net = nn.Sequential(GatedGelu(width, inner, config), nn.Identity(), config.operations.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        return chunked(self.net, x, expansion=2 * MLP_EXPANSION)


class SpatialBlock(nn.Module):
    """Pixels of one frame attend to each other, then to the audio of that frame."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        ops = config.operations
        self.norm1 = ops.LayerNorm(width)
        self.attn1 = SelfAttention(width, config)
        self.norm2 = ops.LayerNorm(width)
        self.attn2 = AudioAttention(width, config.audio_width, config)
        self.norm3 = ops.LayerNorm(width)
        self.ff = FeedForward(width, config)
        self.layer_index = 0  # index of this block in AudioKV. The UNet sets it

    def forward(self, x: Tensor, context: Context) -> Tensor:
        x = context.expand_for_cfg(self.attn1(self.norm1(x)).add_(x))
        num_uncond_rows = context.num_uncond * context.frames
        if num_uncond_rows:
            x[:num_uncond_rows] += self.attn2.uncond(x)
        if context.audio_kv is not None:
            cond = x[num_uncond_rows:]
            cond_update = self.attn2(self.norm2(cond), *context.audio_kv[self.layer_index])
            if torch.is_grad_enabled():
                x = torch.cat([x[:num_uncond_rows], cond + cond_update])
            else:
                cond += cond_update
        return self.ff(self.norm3(x)).add_(x)


class SpatialTransformer(nn.Module):
    """Stable Diffusion's transformer over the pixels of a frame, as a residual. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.norm = config.norm(width, TRANSFORMER_EPS)
        self.proj_in = config.operations.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(width, config)])
        self.proj_out = config.operations.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return context.expand_for_cfg(x) + self.proj_out(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


class PositionalEncoding(nn.Module):
    """Adds a sinusoidal embedding of each frame's position in the window. x: (n, frames, width)."""

    pe: Tensor

    def __init__(self, width: int, max_frames: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoid_table(max_frames, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]].to(x)


def sinusoid_table(positions: int, width: int) -> Tensor:
    """float32 (1, positions, width): sine and cosine interleaved ("Attention is all you need", 3.5)."""
    # always on the CPU, because arithmetic on the meta device takes seconds
    even, position = torch.arange(0, width, 2, device="cpu"), torch.arange(positions, device="cpu")
    angles = position[:, None] * torch.exp(even * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


class TemporalAttention(SelfAttention):
    """Frames attend to each other at each pixel. x: (pixels, frames, width)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__(width, config)
        self.pos_encoder = PositionalEncoding(width, config.max_frames)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pos_encoder(x))


class MotionBlock(nn.Module):
    """Two temporal attentions and an MLP, each as a residual. x: (pixels, frames, width)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(width, config) for _ in range(2))
        self.norms = nn.ModuleList(config.operations.LayerNorm(width) for _ in range(2))
        self.ff = FeedForward(width, config)
        self.ff_norm = config.operations.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for norm, temporal_attention in zip(self.norms, self.attention_blocks, strict=True):
            x = temporal_attention(norm(x)).add_(x)
        return self.ff(self.ff_norm(x)).add_(x)


class MotionTransformer(nn.Module):
    """AnimateDiff's transformer over the frames at each pixel, as a residual. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.norm = config.norm(width, TRANSFORMER_EPS)
        self.proj_in = config.operations.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([MotionBlock(width, config)])
        self.proj_out = config.operations.Linear(width, width)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        # (batch * frames, c, h, w) -> (batch, h, w, frames, c), copied once for all layers of the block
        tokens = self.proj_in(unfold(self.norm(x), context.batch).permute(0, 3, 4, 2, 1).flatten(0, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        by_pixel = self.proj_out(tokens).unflatten(0, (context.batch, *x.shape[2:]))
        return (x.unflatten(0, (context.batch, -1)) + by_pixel.permute(0, 3, 4, 1, 2)).flatten(0, 1)


class MotionModule(nn.Module):
    """AnimateDiff's motion module, which adds one level of names to the state dict."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.temporal_transformer = MotionTransformer(width, config)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.temporal_transformer(x, context)


class Downsample(nn.Module):
    """Halves height and width with a strided convolution. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.conv = config.operations.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles height and width with nearest-neighbor, then a convolution. x: (batch * frames, width, h, w)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.conv = config.operations.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # not F.interpolate: on MPS its nearest neighbors are black outside float32
        pairs = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
        return self.conv(pairs.flatten(4, 5).flatten(2, 3))


class TimeEmbedding(nn.Module):
    """Diffusion timesteps (batch,) -> (batch, time width)."""

    def __init__(self, width: int, config: LayerConfig) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = config.operations.Linear(width, config.time_width)
        self.linear_2 = config.operations.Linear(config.time_width, config.time_width)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.width // 2
        rates = torch.exp(torch.arange(half, device=timesteps.device) * (-math.log(10_000.0) / half))
        angles = timesteps.float()[:, None] * rates
        sinusoid = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        return self.linear_2(F.silu(self.linear_1(sinusoid)))
