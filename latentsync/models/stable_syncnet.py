"""StableSyncNet of LatentSync, in the configuration of the published weights (syncnet_16_pixel_attn).

StableSyncNet compares the lower halves of 16 aligned faces with 0.64 s of audio. The training of LatentSync used this
network as a loss.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import Conv2d, LayerNorm, Linear
from torch.nn import functional as F

from .layers import FeedForward, LayerConfig, attention

WINDOW_FRAMES = 16  # at 25 fps
MEL_BINS = 80
MEL_COLUMNS = 52  # mel frames of one window, 80 per second
PADDING = {2: (0, 1, 0, 1), (1, 2): (0, 1, 1, 1), (2, 1): (1, 1, 0, 1), (2, 3): (0, 1, 0, 1)}
"""Stride of a convolution -> zeros to add before it at the left, right, top and bottom."""

LAYERS = LayerConfig(nn, attention, heads=8, groups=32, time_width=0, audio_width=0, max_frames=0)
EPS = 1e-6  # epsilon of every group norm

Factor = int | tuple[int, int]


class StableSyncNet(nn.Module):
    """The two encoders. All features have length 1, so the dot product of two features is their cosine similarity."""

    def __init__(self) -> None:
        super().__init__()
        self.audio_encoder = Encoder(1, (32, 64, 128, 256, 512, 1024, 2048), ((2, 1), 2, 2, 1, 2, 2, (2, 3)), (3, 4))
        self.visual_encoder = Encoder(
            3 * WINDOW_FRAMES, (64, 128, 256, 256, 512, 1024, 2048, 2048), ((1, 2), 2, 2, 2, 2, 2, 2, 2), (4, 5)
        )

    def visual(self, crops: Tensor) -> Tensor:
        """Features (n, 2048) of lower face halves (n, 48, 128, 256) in -1 to 1.

        A frame and a color have the channel 3 * frame + color.
        """
        return F.normalize(self.visual_encoder(crops).flatten(1))

    def audio(self, mel: Tensor) -> Tensor:
        """Features (n, 2048) of log-mel windows (n, 80, 52), see `scoring.wav2lip_mel`."""
        return F.normalize(self.audio_encoder(mel[:, None]).flatten(1))


class Encoder(nn.Module):
    """Residual blocks that reduce their input to one position.

    Args:
        channels: output channels of each block.
        factors: each block divides height and width by its factor.
        attentions: numbers of the blocks, from 0, that an attention follows.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], factors: Sequence[Factor], attentions: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv_in = Conv2d(in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        width = channels[0]
        for i, (out_width, factor) in enumerate(zip(channels, factors, strict=True)):
            self.down_blocks.append(ResNet(width, out_width, factor))
            width = out_width
            if i in attentions:
                self.down_blocks.append(PixelAttention(width))
        self.norm_out = LAYERS.norm(width, EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return F.relu(self.norm_out(x))


class ResNet(nn.Module):
    """A residual block. If the factor is not 1, a strided convolution follows."""

    def __init__(self, in_width: int, width: int, factor: Factor) -> None:
        super().__init__()
        self.norm1 = LAYERS.norm(in_width, EPS)
        self.conv1 = Conv2d(in_width, width, 3, padding=1)
        self.norm2 = LAYERS.norm(width, EPS)
        self.conv2 = Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = Conv2d(in_width, width, 1) if in_width != width else nn.Identity()
        self.downsample_conv = Conv2d(width, width, 3, factor) if factor != 1 else None
        self._padding = PADDING.get(factor)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        out = out + self.conv_shortcut(x)
        if self.downsample_conv is None or self._padding is None:
            return out
        return self.downsample_conv(F.pad(out, self._padding))


class PixelAttention(nn.Module):
    """Self-attention between the pixels of a feature map, and a feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = LAYERS.norm(width, EPS)
        self.conv_in = Conv2d(width, width, 1)
        self.norm2, self.norm3 = LayerNorm(width), LayerNorm(width)
        self.attn = Attention(width)
        self.ff = FeedForward(width, LAYERS)
        self.conv_out = Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv_in(self.norm1(x)).flatten(2).mT
        tokens = tokens + self.attn(self.norm2(tokens))
        tokens = tokens + self.ff(self.norm3(tokens))
        return x + self.conv_out(tokens.mT.unflatten(2, x.shape[2:]))


class Attention(nn.Module):
    """Self-attention with 8 heads and biases. (n, tokens, width) -> the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out[0](attention(self.to_q(x), self.to_k(x), self.to_v(x), LAYERS.heads))
