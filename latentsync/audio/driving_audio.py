"""Prepare the recording that drives the lips: one channel at 16 kHz, as long as the audio of the finished video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..errors import AudioError
from .waveform import BLOCK_SAMPLES, SAMPLE_RATE, Waveform, check_not_silent, check_samples, resample_blocks

log = logging.getLogger(__name__)

MIN_SAMPLES = SAMPLE_RATE // 25  # one video frame. Whisper's spectrogram needs 25 ms
MIN_DC = 0.01  # share of full scale. A smaller offset is common, and does not affect Whisper


@dataclass(frozen=True, eq=False)
class DrivingAudio:
    """The audio that drives the lips, and the audio of the finished video.

    samples: float32 (n,), mono at 16 kHz, as long as `waveform`. One hour needs 230 MB of RAM.
    waveform: audio of the finished video, unchanged.
    has_vocals: whether `samples` come from a separate recording of the voice.
    offset_samples: delay of the lips in samples of the driving recording. A negative value moves the lips earlier.
    """

    samples: Tensor
    waveform: Waveform
    has_vocals: bool = False
    offset_samples: int = 0

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(len(self.samples), SAMPLE_RATE)

    def __repr__(self) -> str:
        return f"DrivingAudio({float(self.duration_seconds):.3f} s for {self.waveform!r})"


def prepare_driving_audio(
    audio: Waveform, vocals: Waveform | None = None, offset_seconds: Fraction = Fraction(0)
) -> DrivingAudio:
    """Check, mix down and resample the recording that drives the lips.

    Args:
        audio: audio of the finished video.
        vocals: recording that drives the lips in place of `audio`. `vocals` and `audio` start together.
        offset_seconds: delay of the lips, rounded to a sample of the driving recording. Negative: earlier.

    Raises:
        AudioError: a recording is unusable, or the offset moves the whole driving recording outside `audio`.
    """
    check_samples(audio, "audio")
    driving, name = (audio, "audio") if vocals is None else (vocals, "vocals")
    check_samples(driving, name)
    check_not_silent(driving, name)
    offset = round(offset_seconds * driving.rate)
    if not -driving.duration_seconds < Fraction(offset, driving.rate) < audio.duration_seconds:
        raise AudioError(
            f'"offset_ms" is {float(offset_seconds * 1000):g} and moves all of "{name}" '
            f"({float(driving.duration_seconds):.1f} s) outside the audio of the result "
            f'({float(audio.duration_seconds):.1f} s). Set "offset_ms" closer to 0.'
        )
    count = max(int(audio.duration_seconds * SAMPLE_RATE + Fraction(1, 2)), MIN_SAMPLES)
    log.info("The lips follow %s: %r, resampled to %d Hz mono", name, driving, SAMPLE_RATE)
    samples = resample_blocks(_mono_blocks(driving, offset), driving.rate, SAMPLE_RATE, count)
    return DrivingAudio(samples, audio, driving is not audio, offset)


def _mono_blocks(waveform: Waveform, offset: int) -> Iterator[Tensor]:
    """The mean of the channels, without DC offset.

    A positive `offset` adds silence. A negative `offset` cuts samples.
    """
    dc = float(waveform.samples.mean())
    if abs(dc) < MIN_DC:
        dc = 0.0
    for start in range(0, offset, BLOCK_SAMPLES):
        yield torch.zeros(min(offset - start, BLOCK_SAMPLES))
    for block in waveform.samples[:, max(-offset, 0) :].split(BLOCK_SAMPLES, dim=1):
        yield block.detach().cpu().float().mean(dim=0) - dc
