"""Audio in memory: checks, resampling, mixing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import AudioError
from ..video.timeline import num_frames

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame


SAMPLE_RATE = 16_000  # samples per second that Whisper hears


SLOWEST_RATE = 4_000  # samples per second; telephones have 8,000


SHORTEST_SECONDS = Fraction(1, 100)


SILENCE = 2.0**-15  # one step of 16-bit sound


LOUDEST = 100.0  # 40 dB above full scale: what is louder holds integers


BLOCK_SAMPLES = 1 << 20  # samples


REMEDY = "Give a recording of the speech that the lips should follow."


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound as it was recorded.

    samples: float32 (channels, samples), nominally in [-1, 1].
    rate: samples per second.
    """

    samples: torch.Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] < 1:
            raise AudioError(f"sound must be (channels, samples), not {tuple(self.samples.shape)}")
        if self.rate <= 0:
            raise AudioError(f"a sample rate must be positive, not {self.rate}")

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(self.samples.shape[1], self.rate)

    def pad_or_trim(self, seconds: Fraction) -> Waveform:
        """The same sound cut, or filled up with silence, to the whole samples nearest to `seconds`."""
        missing = round(seconds * self.rate) - self.samples.shape[1]
        return Waveform(torch.nn.functional.pad(self.samples, (0, missing)), self.rate)

    def fit_to(self, frames: int, rate: Fraction) -> Waveform:
        """The waveform of `frames` video frames at `rate` fps: cut, or padded with silence, unless it already is."""
        if num_frames(self.duration_seconds, rate) == frames:
            return self
        return self.pad_or_trim(frames / rate)

    def __repr__(self) -> str:
        channels, count = self.samples.shape
        return f"Waveform({channels} channels, {count / self.rate:.3f} s at {self.rate} Hz)"


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


def check_not_silent(waveform: Waveform, name: str) -> None:
    """Raises AudioError for a recording that is silent throughout."""
    low, high = waveform.samples.aminmax()
    if float(high - low) < SILENCE:
        raise AudioError(f"{name}: silent throughout the {duration_text(waveform)}. {REMEDY}")


def resample(pieces: Iterable[Tensor], rate: int, new_rate: int) -> Iterator[Tensor]:
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


def _frame(piece: Tensor, rate: int) -> AudioFrame:
    import av

    frame = av.AudioFrame.from_ndarray(piece[None].numpy(), format="flt", layout="mono")
    frame.sample_rate = rate
    return frame


def duration_text(waveform: Waveform) -> str:
    return f"{float(waveform.duration_seconds):.1f} s"


def mix(waveforms: Sequence[Waveform]) -> Waveform:
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
    parts = [to_rate(waveform, rate).samples.expand(channels, -1) for waveform in different]
    total = torch.zeros(channels, max(part.shape[1] for part in parts))
    for part in parts:
        total[:, : part.shape[1]] += part
    return Waveform(total / max(float(total.abs().max()), 1.0), rate)


def to_rate(waveform: Waveform, rate: int) -> Waveform:
    """The same sound with another number of samples per second."""
    if waveform.rate == rate:
        return waveform
    count = round(waveform.duration_seconds * rate)
    split = [channel.split(BLOCK_SAMPLES) for channel in waveform.samples.cpu().float()]
    channels = [torch.cat(list(resample(pieces, waveform.rate, rate))) for pieces in split]
    return Waveform(torch.stack([torch.nn.functional.pad(c, (0, count - len(c))) for c in channels]), rate)


def _channels(waveforms: Sequence[Waveform]) -> int:
    counts = {waveform.samples.shape[0] for waveform in waveforms}
    if len(counts - {1}) > 1:
        raise AudioError(f"recordings of {sorted(counts)} channels cannot be mixed: convert them to stereo or mono")
    return max(counts)


def _is_same(waveform: Waveform, other: Waveform) -> bool:
    alike = waveform.rate == other.rate and waveform.samples.shape == other.samples.shape
    return waveform is other or (alike and torch.equal(waveform.samples, other.samples))
