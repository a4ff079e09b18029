"""Where somebody speaks: how far a recording stands out of its own background, and a gate that opens on it.

The background is learned: in each of 19 bands, the level that the sound falls back to again and again within 15 s. It
never counts as lower than 22 dB below what is loud in that band, so quiet music is background too, however it moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.constants import MEL_RATE
from .mel import QUIETEST, blocks, log_peak

FIRST_BIN = 4  # of the mel bins: about 150 Hz; below it is hum


BINS_PER_BAND = 4


SMOOTHED_MELS = 5  # 50 ms: two or three pitch periods of a deep voice


QUIET = 0.1  # quantile of a second's levels that is taken for its background


REACH_SECONDS = 15  # on either side, from which the background is learned


RETURNING = 0.2  # quantile of those seconds: a gap of digital silence does not count as the background


LOUD = 0.9  # quantile of the seconds' loudest levels


RANGE_DB = 22.0


TALLEST_DB = 30.0  # a band cannot count for more: one whistle is no speech


STAYING = 0.6  # of the threshold: an open gate stays open above it


LEAD_MELS = 12  # 120 ms: lips part before the sound, and a fade over three frames is through when it begins


@dataclass(frozen=True, eq=False)
class NoiseProfile:
    """What is to be known of a recording, or of a part of it, before it can be judged.

    peak: log10 of its largest mel power.
    quiet, loud: (seconds, bands) power.
    """

    peak: float
    quiet: Tensor
    loud: Tensor


@dataclass(frozen=True, eq=False)
class VoiceActivity:
    """The speech curve of a recording.

    level_db: float32 (frames,), 100 a second: mean over the bands of how far the sound stands out.
    spoken: bool (frames,): the gate.
    threshold_db: at which the gate opens.
    """

    level_db: np.ndarray
    spoken: np.ndarray
    threshold_db: float

    def __repr__(self) -> str:
        return f"Speech({self.spoken.mean():.0%} of {len(self.spoken) / MEL_RATE:.2f} s)"


def profile_noise(powers: Iterable[Tensor]) -> Iterator[NoiseProfile]:
    """The parts of a recording, in order.

    Args:
        powers: mel powers (80, n), whole seconds but for the last.
    """
    for power in powers:
        seconds = _edged_mean(_bands(power)).split(MEL_RATE, dim=1)
        quiet = torch.stack([second.quantile(QUIET, dim=1) for second in seconds])
        loud = torch.stack([second.amax(dim=1) for second in seconds])
        yield NoiseProfile(log_peak(power), quiet, loud)


def merge(parts: Iterable[NoiseProfile]) -> NoiseProfile:
    """The survey of a recording from those of its parts."""
    known = list(parts)
    return NoiseProfile(
        max(part.peak for part in known),
        torch.cat([part.quiet for part in known]),
        torch.cat([part.loud for part in known]),
    )


def snr_db(powers: Iterable[Tensor], known: NoiseProfile) -> Iterator[Tensor]:
    """How far a recording stands out of its background: (frames,) dB, 30 s at a time.

    Args:
        powers: mel powers (80, n) of the recording.
        known: its survey.
    """
    least = known.loud.quantile(LOUD, dim=0) / 10 ** (RANGE_DB / 10)
    bands = blocks(_smoothed(_bands(power) for power in powers), REACH_SECONDS * 2 * MEL_RATE)
    for number, block in enumerate(bands):
        seconds = -(-block.shape[1] // MEL_RATE)
        background = _background(known.quiet, number * REACH_SECONDS * 2, seconds).maximum(least)
        floor = background.repeat_interleave(MEL_RATE, dim=0)[: block.shape[1]].T
        yield (block / floor).log10().mul(10).clamp(0, TALLEST_DB).mean(dim=0)


def threshold(level_db: Tensor, threshold_db: float, hangover_s: float) -> VoiceActivity:
    """Where the level reaches the threshold, with all around that stays above three fifths of it, and 120 ms before.

    Args:
        level_db: (frames,).
        threshold_db: at which the gate opens.
        hangover_s: how long it stays open after the level has fallen.
    """
    level = level_db.numpy()
    stays, opens = level > STAYING * threshold_db, level > threshold_db
    edges = np.flatnonzero(np.diff(stays, prepend=False, append=False))
    spoken = np.zeros(len(level), dtype=bool)
    for first, end in edges.reshape(-1, 2):
        if opens[first:end].any():
            spoken[max(first - LEAD_MELS, 0) : end + round(hangover_s * MEL_RATE)] = True
    return VoiceActivity(level, spoken, threshold_db)


def _bands(power: Tensor) -> Tensor:
    """Mel powers (80, n) -> (bands, n)."""
    return power[FIRST_BIN:].unflatten(0, (-1, BINS_PER_BAND)).sum(dim=1).clamp_min(QUIETEST)


def _background(quiet: Tensor, first: int, count: int) -> Tensor:
    """(count, bands): what the sound falls back to around each second from `first` on."""
    around = [quiet[max(i - REACH_SECONDS, 0) : i + REACH_SECONDS + 1] for i in range(first, first + count)]
    return torch.stack([part.quantile(RETURNING, dim=0) for part in around])


def _smoothed(pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """The mean over 50 ms around each frame, across the joints of the pieces."""
    half = SMOOTHED_MELS // 2
    held: Tensor | None = None
    for piece in pieces:
        held = piece[:, :1].expand(-1, half) if held is None else held
        held = torch.cat((held, piece), dim=1)
        if held.shape[1] >= SMOOTHED_MELS:
            yield F.avg_pool1d(held, SMOOTHED_MELS, 1)
            held = held[:, 1 - SMOOTHED_MELS :]
    if held is not None:
        yield F.avg_pool1d(torch.cat((held, held[:, -1:].expand(-1, half)), dim=1), SMOOTHED_MELS, 1)


def _edged_mean(bands: Tensor) -> Tensor:
    """The same of one piece alone."""
    return torch.cat(list(_smoothed([bands])), dim=1)
