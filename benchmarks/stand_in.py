"""The command line with a denoiser and a codec that cost next to nothing: what is left is everything else.

Usage: python -m benchmarks.stand_in run VIDEO AUDIO -o OUT --synthetic ...   (the arguments of `python -m latentsync`)
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from torch.nn import functional as F

from latentsync import __main__
from latentsync.commands import run
from latentsync.spec import LATENT_SCALE, LATENT_STRIDE


class PoolingCodec:
    """Latents are the picture, eight times smaller."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        small = F.avg_pool2d(images, LATENT_STRIDE)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return F.interpolate(latents[:, :3], scale_factor=LATENT_STRIDE)


def predict_nothing(x: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of zero: the result is what the schedule makes of the start, scaled to a visible grey."""
    return x[:, :4] * LATENT_SCALE, x


def main(arguments: list[str]) -> int:
    synthetic = run._synthetic_models
    run._synthetic_models = lambda: replace(synthetic(), unet=predict_nothing, codec=PoolingCodec())
    return __main__.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
