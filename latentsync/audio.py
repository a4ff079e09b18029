"""Sound to what the lips hear: Whisper states at 50 positions a second, one window of them per frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .mel import HOP_SAMPLES, log_mel
from .models.whisper import MEL_BINS, SEGMENT_MELS, WhisperEncoder
from .spec import AUDIO_POSITIONS, MEL_RATE
from .types import Segments

STATE_RATE = MEL_RATE // 2  # positions per second: the encoder halves
SEGMENT_POSITIONS = SEGMENT_MELS // 2
BEFORE = AUDIO_POSITIONS // 2 - 1  # positions that a window starts before its centre
AFTER = AUDIO_POSITIONS - BEFORE - 1
CONTEXT_POSITIONS = 5 * STATE_RATE  # that a state has on both sides at the least, but for the recording's ends
CLOSING_POSITIONS = 7  # 140 ms, over which the states of silence take over from those of speech

HOPS = {"overlapping": SEGMENT_MELS // 2, "upstream": SEGMENT_MELS}
"""Mel frames from the beginning of one segment to that of the next."""


def embed(
    powers: Iterable[Tensor],
    encoder: WhisperEncoder,
    peak: float,
    segments: Segments = "overlapping",
    closed: np.ndarray | None = None,
) -> Iterator[Tensor]:
    """The Whisper states of a recording.

    "upstream" follows its whisper/audio2feature.py: segments of 30 s that know nothing of one another, the last one
    filled up with zeros after the logarithm. "overlapping" takes the same segments and lays another over each cut;
    near a segment's ends the states come from the other one, and in between one fades into the other. In the first
    20 s, and from 10 to 20 s of each further segment, the states are upstream's. It also has true silence before and
    after the recording, where upstream's windows repeat its first and last state.

    Args:
        powers: mel powers (80, n) of the recording, see `mel.powers`.
        encoder: runs where its weights are.
        peak: log10 of the recording's largest mel power.
        closed: bool (positions,): where the states are those of true silence; None: nowhere.

    Yields:
        (positions, 5, 384) in order, on the CPU, 50 positions a second. With "overlapping", the first 4 and the last 5
        lie outside of the recording.
    """
    hop = HOPS[segments]
    silence = _encode(log_mel(torch.zeros(MEL_BINS, SEGMENT_MELS), peak), encoder)
    mels = (log_mel(power, peak) for power in powers)
    states = _states(_segments(mels, hop), encoder)
    if closed is not None:
        states = _closed(states, silence, _fade(closed), hop // 2)
    yield from states if hop == SEGMENT_MELS else _joined(states, silence)


def windows(states: Tensor, frames: Sequence[int], rate: Fraction, first: int = 0) -> Tensor:
    """What each frame hears: ten positions around its instant, five states each.

    Args:
        states: (positions, 5, 384).
        frames: numbers of the frames in a clip.
        rate: of the clip, frames a second.
        first: position of `states[0]`; negative where there are states of before the clip.

    Returns:
        (len(frames), 50, 384), position-major; beyond either end the outermost position is repeated.
    """
    centres = torch.tensor([int(frame * STATE_RATE / rate) for frame in frames], device=states.device)
    offsets = torch.arange(AUDIO_POSITIONS, device=states.device) - BEFORE
    positions = (centres[:, None] + offsets - first).clamp(0, len(states) - 1)
    return states[positions].flatten(1, 2)


def segment_count(sample_count: int, segments: Segments) -> int:
    """How many pieces `embed` yields of so many samples at 16 kHz."""
    mels, hop = sample_count // HOP_SAMPLES, HOPS[segments]
    encoded = 1 + max(-(-(mels - SEGMENT_MELS) // hop), 0)
    return encoded if segments == "upstream" else encoded + 3


def _segments(mels: Iterator[Tensor], hop: int) -> Iterator[Tensor]:
    """(80, 3000) each `hop` frames; the last one ends with the recording."""
    held = torch.empty(MEL_BINS, 0)
    for mel in mels:
        held = torch.cat((held, mel), dim=1)
        while held.shape[1] > SEGMENT_MELS:
            yield held[:, :SEGMENT_MELS]
            held = held[:, hop:]
    yield held


def _states(segments: Iterator[Tensor], encoder: WhisperEncoder) -> Iterator[Tensor]:
    for segment in segments:
        held = segment.shape[1]
        yield _encode(F.pad(segment, (0, SEGMENT_MELS - held)), encoder)[: held // 2]


def _encode(segment: Tensor, encoder: WhisperEncoder) -> Tensor:
    with torch.no_grad():
        return encoder(segment[None].to(next(encoder.parameters())))[0].cpu()


def _closed(states: Iterator[Tensor], silence: Tensor, share: Tensor, hop: int) -> Iterator[Tensor]:
    """`silence` in the place of a segment's states by its `share` (positions,) of each position."""
    for number, segment in enumerate(states):
        at = share[number * hop : number * hop + len(segment), None, None]
        yield torch.lerp(segment, silence[: len(segment)], at)


def _fade(closed: np.ndarray) -> Tensor:
    """The share of silence in each position: 1 inside each stretch, rising to it from 0 within the stretch."""
    share, half = torch.from_numpy(closed).float()[None], CLOSING_POSITIONS // 2
    inside = -F.max_pool1d(-F.pad(share, (half, half), value=1.0), CLOSING_POSITIONS, 1)
    return F.avg_pool1d(F.pad(inside, (half, half), mode="replicate"), CLOSING_POSITIONS, 1)[0]


def _joined(states: Iterator[Tensor], silence: Tensor) -> Iterator[Tensor]:
    """Segments that begin each half of one, as one row of states, with silence at its ends as far as a window reaches.

    A state also tells its position in its segment: that of the silence is the nearest to its neighbour's there is.
    """
    half = SEGMENT_POSITIONS // 2
    ramp = torch.linspace(-torch.pi / 2, torch.pi / 2, half - 2 * CONTEXT_POSITIONS).sin().add(1).div(2)
    weight = torch.cat((torch.zeros(CONTEXT_POSITIONS), ramp, torch.ones(CONTEXT_POSITIONS)))[:, None, None]
    segment, before = silence[:0], None
    yield silence[:1].expand(BEFORE, -1, -1)
    for segment in states:
        yield segment[:half] if before is None else torch.lerp(before, segment[:half], weight)
        before = segment[half:]
    yield segment[half:]
    yield silence[torch.arange(len(segment), len(segment) + AFTER).clamp(max=SEGMENT_POSITIONS - 1)]
