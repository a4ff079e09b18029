"""A recording as Whisper hears it: 16 kHz, mono, laid against the sound of the finished video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import AudioError
from .types import Waveform

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

SAMPLE_RATE = 16_000  # samples per second that Whisper hears
SLOWEST_RATE = 4_000  # samples per second; telephones have 8,000
SHORTEST_SECONDS = Fraction(1, 100)
SHORTEST_HEARD = SAMPLE_RATE // 25  # samples; Whisper's spectrogram needs 25 ms, a frame of the video lasts 40
SILENCE = 2.0**-15  # one step of 16-bit sound
LOUDEST = 100.0  # 40 dB above full scale: what is louder holds integers
DIRECT_CURRENT = 0.01  # of full scale; less is every recording's, and far below what Whisper resolves
MIXED_AT_ONCE = 1 << 20  # samples
REMEDY = "Give a recording of the speech that the lips should follow."


@dataclass(frozen=True, eq=False)
class Heard:
    """16 kHz mono, made anew, piece by piece, whenever it is iterated: float32 (samples,) tensors.

    source: the recording that drives the lips.
    shift_samples: of the source's own, by which it comes later (or, negative, earlier) than it was recorded.
    sample_count: at 16 kHz; beyond the source's ends there is silence.
    """

    source: Waveform
    shift_samples: int
    sample_count: int

    def __iter__(self) -> Iterator[Tensor]:
        mono = _mixed(self.source, self.shift_samples)
        yield from _fitted(resampled(mono, self.source.rate, SAMPLE_RATE), self.sample_count)

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(self.sample_count, SAMPLE_RATE)

    def __repr__(self) -> str:
        return f"Heard({float(self.duration_seconds):.3f} s of {self.source!r}, {self.shift_samples} samples later)"


def hear(audio: Waveform, vocals: Waveform | None = None, offset_seconds: Fraction = Fraction(0)) -> Heard:
    """What drives the lips of a video that will have the sound `audio`, for as long as that lasts.

    Args:
        audio: the sound of the finished video.
        vocals: drives the lips in its place, from the same instant on; None lets `audio` itself do so.
        offset_seconds: by how much the lips come later; negative: earlier. Exact to the driving recording's sample.

    Raises:
        AudioError: there is nothing to hear, or not within the time that `audio` takes.
    """
    check_samples(audio, "the audio")
    driving, name = (audio, "the audio") if vocals is None else (vocals, "the vocals")
    check_samples(driving, name)
    check_sound(driving, name)
    shift = round(offset_seconds * driving.rate)
    if not -driving.duration_seconds < Fraction(shift, driving.rate) < audio.duration_seconds:
        raise AudioError(
            f"an offset of {float(offset_seconds * 1000):g} ms leaves none of {name} ({_lasts(driving)}) "
            f"within the {_lasts(audio)} of the finished sound: use a smaller one"
        )
    count = int(audio.duration_seconds * SAMPLE_RATE + Fraction(1, 2))
    return Heard(driving, shift, max(count, SHORTEST_HEARD))


def check_samples(waveform: Waveform, name: str) -> None:
    """Raises AudioError for a recording that is too short or too coarse, or whose samples are not numbers around
    [-1, 1]."""
    count = waveform.samples.shape[1]
    if waveform.rate < SLOWEST_RATE:
        raise AudioError(
            f"{name}: only {waveform.rate} samples per second hold no speech: its header may be damaged. {REMEDY}"
        )
    if waveform.duration_seconds < SHORTEST_SECONDS:
        raise AudioError(f"{name}: only {count} samples, less than 10 ms. {REMEDY}")
    low, high = (float(extreme) for extreme in waveform.samples.aminmax())
    if not (isfinite(low) and isfinite(high)):
        wrong = ~waveform.samples.isfinite().all(dim=0)
        first = int(wrong.nonzero()[0])
        raise AudioError(
            f"{name}: {int(wrong.sum())} samples are not numbers, the first at "
            f"{first / waveform.rate:.3f} s. Export the recording again."
        )
    if max(-low, high) > LOUDEST:
        raise AudioError(
            f"{name}: reaches {max(-low, high):g} where 1 is full scale: these are integers. "
            "Divide them by full scale (32768 for 16 bits)."
        )


def check_sound(waveform: Waveform, name: str) -> None:
    """Raises AudioError for a recording that is silent throughout."""
    low, high = waveform.samples.aminmax()
    if float(high - low) < SILENCE:
        raise AudioError(f"{name}: silent throughout the {_lasts(waveform)}. {REMEDY}")


def resampled(pieces: Iterable[Tensor], rate: int, new_rate: int) -> Iterator[Tensor]:
    """Pieces (samples,) of one channel at another rate: by FFmpeg's resampler, as upstream's reader uses."""
    if rate == new_rate:
        yield from pieces
        return
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=new_rate)
    frames = (resampler.resample(_frame(piece, rate)) for piece in pieces)
    for out in chain.from_iterable(frames):
        yield torch.from_numpy(out.to_ndarray()[0])
    for out in resampler.resample(None):
        yield torch.from_numpy(out.to_ndarray()[0])


def _mixed(waveform: Waveform, shift: int) -> Iterator[Tensor]:
    """One channel, `shift` samples later: silence first, or the beginning left out. A direct current is taken off."""
    current = float(waveform.samples.mean())
    if abs(current) < DIRECT_CURRENT:
        current = 0.0
    for first in range(0, shift, MIXED_AT_ONCE):
        yield torch.zeros(min(shift - first, MIXED_AT_ONCE))
    for piece in waveform.samples[:, max(-shift, 0) :].split(MIXED_AT_ONCE, dim=1):
        yield piece.detach().cpu().float().mean(dim=0) - current


def _frame(piece: Tensor, rate: int) -> AudioFrame:
    import av

    frame = av.AudioFrame.from_ndarray(piece[None].numpy(), format="flt", layout="mono")
    frame.sample_rate = rate
    return frame


def _fitted(pieces: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """`count` samples: cut, or filled up with silence."""
    left = count
    for piece in pieces:
        if left > 0:
            yield piece[:left]
        left -= len(piece)
    for first in range(0, left, MIXED_AT_ONCE):
        yield torch.zeros(min(left - first, MIXED_AT_ONCE))


def _lasts(waveform: Waveform) -> str:
    return f"{float(waveform.duration_seconds):.1f} s"
