"""Background audio under the speech: room sound, music and effects, quieter during speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AudioError, UsageError
from ..models.constants import MEL_RATE
from .driving_audio import prepare_driving_audio
from .features import detect_speech
from .waveform import MIN_PEAK_TO_PEAK, Waveform, check_samples, resample

CEILING_DB = -1.0  # limit of the true peak. Lossy codecs overshoot by less than 1 dB
OVERSAMPLING = 4  # factor for the true peak, as in ITU-R BS.1770-4
HALF_TAPS = 12  # taps of the oversampling filter on each side of its center
LOOKAHEAD_S = 0.005  # the limiter's gain falls over this time before a peak, and rises after it
ATTACK_S = 0.1  # time of the fade to the ducked level, which ends when speech begins
RELEASE_S = 0.5
MAX_GAIN_DB = 40.0


@dataclass(frozen=True, slots=True)
class BackgroundSettings:
    """Settings of the mix of background and speech.

    gain_db: level of the background, -40 to 40 dB.
    ducking_db: reduction of this level during speech, 0 to 40 dB.
    """

    gain_db: float = 0.0
    ducking_db: float = 12.0

    def __post_init__(self) -> None:
        if not -MAX_GAIN_DB <= self.gain_db <= MAX_GAIN_DB:
            raise UsageError(f'"background_gain_db" cannot be {self.gain_db:g}. Choose a value from -40 to 40 dB.')
        if not 0.0 <= self.ducking_db <= MAX_GAIN_DB:
            raise UsageError(f'"ducking_db" cannot be {self.ducking_db:g}. Choose a value from 0 to 40 dB.')


def add_background(speech: Waveform, background: Waveform, settings: BackgroundSettings) -> Waveform:
    """Mix a background under the speech. Speech and background start together. The mix has the length of the speech.

    The mix has the higher sample rate of both. A shorter background ends before the speech. Mono audio plays on every
    channel. The true peak of the mix stays below CEILING_DB. The limiter changes only samples around peaks.

    Raises:
        AudioError: the background is unusable, or its number of channels does not fit the speech.
    """
    check_background(speech, background)
    rate = max(speech.rate, background.rate)
    voice = resample(speech, rate).samples.float()
    under = resample(background, rate).pad_or_trim(speech.duration_seconds).samples.float()
    under = F.pad(under, (0, voice.shape[1] - under.shape[1]))
    gain = 10 ** (settings.gain_db / 20) * torch.ones(1)
    low, high = speech.samples.aminmax()
    if settings.ducking_db > 0 and float(high - low) >= MIN_PEAK_TO_PEAK:
        is_speech = detect_speech(prepare_driving_audio(speech).samples).is_speech
        gain = gain * ducking_gain(is_speech, settings.ducking_db, rate, voice.shape[1])
    warnings = tuple(dict.fromkeys([*speech.warnings, *background.warnings]))
    return Waveform(limit(voice + under * gain, rate), rate, warnings)


def check_background(speech: Waveform, background: Waveform) -> None:
    """Raise AudioError if a background is unusable, or has a number of channels that does not fit the speech."""
    check_samples(background, "background")
    channels, speech_channels = background.samples.shape[0], speech.samples.shape[0]
    if channels != speech_channels and 1 not in (channels, speech_channels):
        raise AudioError(
            f'"background" has {channels} channels, and the speech has {speech_channels}. '
            "Convert both recordings to stereo or mono."
        )


def ducking_gain(is_speech: np.ndarray, ducking_db: float, rate: int, count: int) -> Tensor:
    """Gain of the background: float32 (count,), from 1 down to -`ducking_db` during speech.

    The gain falls linearly in dB over ATTACK_S before the speech, and rises over RELEASE_S after the speech.

    Args:
        is_speech: bool (n,), 100 values per second.
        rate, count: sample rate and number of samples of the background.
    """
    times = np.arange(len(is_speech)) / MEL_RATE
    starts = times[np.flatnonzero(np.diff(is_speech, prepend=False) & is_speech)]
    stops = (np.flatnonzero(np.diff(is_speech, append=False) & is_speech) + 1) / MEL_RATE
    share = torch.zeros(count, dtype=torch.float64)  # share of the full ducking, 0 to 1
    for start, stop in zip(starts, stops, strict=True):
        first = max(int((start - ATTACK_S) * rate), 0)
        last = min(int((stop + RELEASE_S) * rate) + 1, count)
        seconds = torch.arange(first, last, dtype=torch.float64) / rate
        ramp = torch.minimum(1 - (start - seconds) / ATTACK_S, 1 - (seconds - stop) / RELEASE_S).clamp(0, 1)
        share[first:last] = torch.maximum(share[first:last], ramp)
    return (10 ** (-ducking_db / 20 * share)).float()


def limit(samples: Tensor, rate: int) -> Tensor:
    """Keep the true peak of samples, float32 (channels, n), below CEILING_DB. Only samples around peaks change.

    The limiter holds the gain of each peak for LOOKAHEAD_S on both sides, and smooths it with a window of this reach.
    The gain therefore has no steps, and no peak exceeds CEILING_DB.
    """
    ceiling = 10 ** (CEILING_DB / 20)
    peaks = true_peaks(samples)
    if float(peaks.max()) <= ceiling:
        return samples
    needed = torch.where(peaks > ceiling, ceiling / peaks, 1.0)
    reach = max(round(LOOKAHEAD_S * rate), 1)
    minimum = -F.max_pool1d(F.pad(-needed[None], (2 * reach, 2 * reach), value=-1.0), 2 * reach + 1, 1)
    window = torch.hann_window(2 * reach + 3, periodic=False, dtype=torch.float64)[1:-1]
    gain = F.conv1d(minimum[None].double(), (window / window.sum())[None, None])[0, 0].float()
    return samples * gain.minimum(torch.ones(1))


def true_peaks(samples: Tensor) -> Tensor:
    """Largest magnitude around each sample, also between samples, over all channels: float32 (n,)."""
    peaks = samples.abs().amax(dim=0)
    offsets = torch.arange(-HALF_TAPS, HALF_TAPS + 1, dtype=torch.float64)
    for step in range(1, OVERSAMPLING):
        at = offsets - step / OVERSAMPLING
        taps = torch.sinc(at) * torch.cos(torch.pi * at / (2 * HALF_TAPS + 2)) ** 2
        kernel = (taps / taps.sum()).float()[None, None]
        between = F.conv1d(samples[:, None], kernel, padding=HALF_TAPS)[:, 0].abs().amax(dim=0)
        # a peak between two samples counts for both samples
        peaks = torch.maximum(peaks, torch.maximum(between, F.pad(between, (1, 0))[:-1]))
    return peaks
