"""Several recordings heard together."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .errors import AudioError
from .sound import MIXED_AT_ONCE, resampled
from .types import Waveform


def mixed(waveforms: Sequence[Waveform]) -> Waveform:
    """The sum of recordings that begin together, as long as the longest, at the highest rate.

    One alone, or one given twice, stays untouched. Mono is heard on every channel. Where the sum would exceed full
    scale, all of it is quieter.

    Raises:
        AudioError: recordings of several numbers of channels, none of them 1.
    """
    different: list[Waveform] = []
    for waveform in waveforms:
        if not any(_is_same(waveform, other) for other in different):
            different.append(waveform)
    if len(different) == 1:
        return different[0]
    rate = max(waveform.rate for waveform in different)
    channels = _channels(different)
    parts = [at_rate(waveform, rate).samples.expand(channels, -1) for waveform in different]
    total = torch.zeros(channels, max(part.shape[1] for part in parts))
    for part in parts:
        total[:, : part.shape[1]] += part
    return Waveform(total / max(float(total.abs().max()), 1.0), rate)


def at_rate(waveform: Waveform, rate: int) -> Waveform:
    """The same sound with another number of samples per second."""
    if waveform.rate == rate:
        return waveform
    count = round(waveform.duration_seconds * rate)
    split = [channel.split(MIXED_AT_ONCE) for channel in waveform.samples.cpu().float()]
    channels = [torch.cat(list(resampled(pieces, waveform.rate, rate))) for pieces in split]
    return Waveform(torch.stack([torch.nn.functional.pad(c, (0, count - len(c))) for c in channels]), rate)


def _channels(waveforms: Sequence[Waveform]) -> int:
    counts = {waveform.samples.shape[0] for waveform in waveforms}
    if len(counts - {1}) > 1:
        raise AudioError(f"recordings of {sorted(counts)} channels cannot be mixed: convert them to stereo or mono")
    return max(counts)


def _is_same(waveform: Waveform, other: Waveform) -> bool:
    alike = waveform.rate == other.rate and waveform.samples.shape == other.samples.shape
    return waveform is other or (alike and torch.equal(waveform.samples, other.samples))
