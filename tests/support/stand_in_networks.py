"""Networks for tests in which the lips do not matter. They need almost no time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F
from typing_extensions import Self

from benchmarks.stand_in_nodes.networks import Deaf, PoolingCodec
from latentsync.models.constants import AUDIO_STATES, AUDIO_WIDTH


class Movable:
    """A network without weights. `to` therefore returns the network unchanged."""

    def to(self, *_: object) -> Self:
        return self


class StandInUNet(Movable, Deaf):
    pass


class StandInVAE(Movable, PoolingCodec):
    pass


class StandInWhisper(Movable):
    """The hidden states are the mel, padded with zeros."""

    def parameters(self) -> Iterator[torch.Tensor]:
        yield torch.empty(0)

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        positions = F.avg_pool1d(mel, 2).mT
        return F.pad(positions, (0, AUDIO_WIDTH - positions.shape[-1]))[:, :, None].expand(-1, -1, AUDIO_STATES, -1)
