"""Audio waveforms in memory: checks, resampling, mixing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import isfinite

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AudioError
from ..video.timeline import num_frames

SAMPLE_RATE = 16_000  # Hz, for the input of Whisper
BLOCK_SAMPLES = 1 << 20  # samples per channel that are converted at once
MIN_RATE = 4_000  # Hz. Telephones have 8,000
MIN_SECONDS = Fraction(1, 100)
MIN_PEAK_TO_PEAK = 2.0**-15  # one step of 16-bit audio. A lower value is silence
MAX_PEAK = 100.0  # 40 dB above full scale. A higher peak means integer samples
REMEDY = "Use a recording of the speech that the lips should follow."


@dataclass(frozen=True, eq=False)
class Waveform:
    """Audio in its original sample rate and channels.

    samples: float32 (channels, samples), nominally in [-1, 1].
    rate: samples per second.
    warnings: sentences for the user about the audio file.
    """

    samples: Tensor
    rate: int
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] < 1:
            raise AudioError(
                "The waveform has the wrong dimensions. Provide channels and samples, with at least one channel."
            )
        if self.rate <= 0:
            raise AudioError(f"The sample rate of a waveform cannot be {self.rate} Hz. Use a number above 0.")

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(self.samples.shape[1], self.rate)

    def pad_or_trim(self, seconds: Fraction) -> Waveform:
        """Cut the waveform, or pad it with silence, to the whole number of samples nearest to `seconds`."""
        missing = round(seconds * self.rate) - self.samples.shape[1]
        return replace(self, samples=F.pad(self.samples, (0, missing)))

    def fit_to(self, frames: int, rate: Fraction) -> Waveform:
        """Cut or pad the waveform to `frames` video frames at `rate` fps.

        Return a waveform of this length unchanged.
        """
        if num_frames(self.duration_seconds, rate) == frames:
            return self
        return self.pad_or_trim(frames / rate)

    def __repr__(self) -> str:
        channels, count = self.samples.shape
        return f"Waveform({channels} channels, {count / self.rate:.3f} s at {self.rate} Hz)"


def check_samples(waveform: Waveform, name: str) -> None:
    """Raise AudioError if a waveform is too short, its sample rate is too low, or its samples are NaN,
    infinite or far above full scale.

    Args:
        name: name of the input in the message.
    """
    for _ in checked_blocks(waveform.samples.split(BLOCK_SAMPLES, dim=1), waveform.rate, name):
        pass


def checked_blocks(blocks: Iterable[Tensor], rate: int, name: str) -> Iterator[Tensor]:
    """Yield the same parts of a recording, each (channels, n). Raises the errors of `check_samples`, most of them at
    the end.
    """
    if rate < MIN_RATE:
        raise AudioError(
            f'"{name}" has a sample rate of {rate} Hz, too low for speech. '
            f"The header of the file may be damaged. {REMEDY}"
        )
    count, peak, num_wrong, first_wrong = 0, 0.0, 0, 0
    for block in blocks:
        if not block.shape[1]:
            continue
        low, high = (float(extreme) for extreme in block.aminmax())
        if isfinite(low) and isfinite(high):
            peak = max(peak, -low, high)
        else:
            is_wrong = ~block.isfinite().all(dim=0)
            first_wrong = first_wrong if num_wrong else count + int(is_wrong.nonzero()[0])
            num_wrong += int(is_wrong.sum())
        count += block.shape[1]
        yield block
    if Fraction(count, rate) < MIN_SECONDS:
        raise AudioError(f'"{name}" is shorter than 10 ms ({count} samples). {REMEDY}')
    if num_wrong:
        raise AudioError(
            f'"{name}" contains {num_wrong} NaN or infinite samples. The first is at '
            f"{first_wrong / rate:.3f} s. Export the recording again."
        )
    if peak > MAX_PEAK:
        raise AudioError(
            f'The audio "{name}" has a peak of {peak:g}, but full scale is 1. The samples are integers. '
            "Divide the samples by full scale (32768 for 16 bits)."
        )


def check_not_silent(waveform: Waveform, name: str) -> None:
    """Raise AudioError if a waveform is silent from its start to its end."""
    low, high = waveform.samples.aminmax()
    if float(high - low) < MIN_PEAK_TO_PEAK:
        raise AudioError(
            " ".join(
                [
                    f'"{name}" is completely silent ({float(waveform.duration_seconds):.1f} s). {REMEDY}',
                    *waveform.warnings,
                ]
            )
        )


def resample(waveform: Waveform, rate: int) -> Waveform:
    """Convert a waveform to another sample rate."""
    if waveform.rate == rate:
        return waveform
    count = round(waveform.duration_seconds * rate)
    channels = [channel.split(BLOCK_SAMPLES) for channel in waveform.samples.cpu().float()]
    samples = torch.stack([resample_blocks(blocks, waveform.rate, rate, count) for blocks in channels])
    return replace(waveform, samples=samples, rate=rate)


def resample_blocks(blocks: Iterable[Tensor], rate: int, new_rate: int, num_samples: int) -> Tensor:
    """Convert one channel to another sample rate with FFmpeg's resampler, which the official code uses too.

    Args:
        blocks: consecutive parts of the channel, each float32 (n,). The function never copies the whole channel.
        num_samples: length of the result, which is cut or padded with silence.

    Returns:
        float32 (num_samples,).
    """
    samples, count = torch.zeros(num_samples), 0
    for block in blocks if rate == new_rate else swresample(blocks, rate, new_rate):
        stop = min(count + len(block), num_samples)
        samples[count:stop] = block[: stop - count]
        count = stop
        if count == num_samples:
            break
    return samples


def swresample(blocks: Iterable[Tensor], rate: int, new_rate: int) -> Iterator[Tensor]:
    """Convert one channel, in parts of float32 (n,), to another sample rate with FFmpeg's resampler."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=new_rate)
    for block in chain(blocks, [None]):  # None flushes the last samples of the filter
        frame = None
        if block is not None:
            frame = av.AudioFrame.from_ndarray(block[None].numpy(), format="flt", layout="mono")
            frame.sample_rate = rate
        for resampled in resampler.resample(frame):
            yield torch.from_numpy(resampled.to_ndarray()[0])


def mix(waveforms: Sequence[Waveform]) -> Waveform:
    """Add recordings that start together. The mix has the length of the longest recording, and the highest sample rate.
    The function returns a single recording, or the same recording twice, unchanged. Mono recordings play on all
    channels. If the sum exceeds full scale, the whole mix becomes quieter.

    Raises:
        AudioError: the recordings that are not mono have different numbers of channels.
    """
    different: list[Waveform] = []
    for waveform in waveforms:
        if not any(_is_same(waveform, other) for other in different):
            different.append(waveform)
    if len(different) == 1:
        return different[0]
    counts = sorted({waveform.samples.shape[0] for waveform in different})
    if len(set(counts) - {1}) > 1:
        raise AudioError(
            f"LatentSync cannot mix recordings with {' and '.join(map(str, counts))} channels. Convert all recordings "
            "of the speakers to stereo or mono."
        )
    rate = max(waveform.rate for waveform in different)
    voices = [resample(waveform, rate).samples.expand(counts[-1], -1) for waveform in different]
    total = torch.zeros(counts[-1], max(voice.shape[1] for voice in voices))
    for voice in voices:
        total[:, : voice.shape[1]] += voice
    warnings = tuple(warning for waveform in different for warning in waveform.warnings)
    return Waveform(total / max(float(total.abs().max()), 1.0), rate, warnings)


def _is_same(waveform: Waveform, other: Waveform) -> bool:
    has_same_shape = waveform.rate == other.rate and waveform.samples.shape == other.samples.shape
    return waveform is other or (has_same_shape and torch.equal(waveform.samples, other.samples))
