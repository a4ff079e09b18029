"""The log-mel spectrogram of Wav2Lip, which is the input of StableSyncNet."""

from __future__ import annotations

from functools import cache

import numpy as np

from ..audio.mono import Samples
from ..audio.waveform import SAMPLE_RATE
from ..models.stable_syncnet import MEL_BINS

FFT_SAMPLES = 800
HOP_SAMPLES = 200
MEL_RATE = SAMPLE_RATE // HOP_SAMPLES
PRE_EMPHASIS = 0.97
LOWEST_HZ, HIGHEST_HZ = 55.0, 7600.0
MIN_MAGNITUDE = 1e-5  # -100 dB
REFERENCE_DB = 20.0
MAX_VALUE = 4.0  # -100 dB becomes -4, and 0 dB becomes 4

LINEAR_HZ = 200 / 3  # Slaney's mel scale: one mel in Hz below LOG_START_HZ
LOG_START_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27  # growth of the frequency's logarithm by one mel above LOG_START_HZ


def num_columns(num_samples: int) -> int:
    """Number of mel columns of a recording."""
    return 1 + num_samples // HOP_SAMPLES


def log_mel(samples: np.ndarray | Samples, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Mel columns `start` to `stop` of a recording, 80 columns per second. The default is all. Silence pads both ends.

    Args:
        samples: (n,), 16 kHz, -1 to 1, the whole recording.

    Returns:
        float32 (80, stop - start), -4 to 4.
    """
    stop = num_columns(len(samples)) if stop is None else stop
    first = start * HOP_SAMPLES - FFT_SAMPLES // 2
    block = np.zeros((stop - 1 - start) * HOP_SAMPLES + FFT_SAMPLES + 1)  # from one sample earlier
    low, high = max(first - 1, 0), min(first - 1 + len(block), len(samples))
    if low < high:
        block[low - first + 1 : high - first + 1] = samples[low:high]
    emphasized = block[1:] - PRE_EMPHASIS * block[:-1]
    emphasized[min(max(len(samples) - first, 0), len(emphasized)) :] = 0
    frames = np.lib.stride_tricks.sliding_window_view(emphasized, FFT_SAMPLES)[::HOP_SAMPLES]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SAMPLES) / FFT_SAMPLES)
    magnitude = np.abs(np.fft.rfft(frames * window)) @ _mel_filters().T
    decibels = 20 * np.log10(np.maximum(magnitude, MIN_MAGNITUDE)) - REFERENCE_DB
    return (2 * MAX_VALUE * (decibels + 100) / 100 - MAX_VALUE).clip(-MAX_VALUE, MAX_VALUE).T.astype(np.float32)


@cache
def _mel_filters() -> np.ndarray:
    """Triangular filters of equal area, evenly spaced on Slaney's mel scale: (80, 401)."""
    start = LOG_START_HZ / LINEAR_HZ
    ends = [start + np.log(HIGHEST_HZ / LOG_START_HZ) / LOG_STEP, LOWEST_HZ / LINEAR_HZ]
    mels = np.linspace(ends[1], ends[0], MEL_BINS + 2)
    hertz = np.where(mels < start, LINEAR_HZ * mels, LOG_START_HZ * np.exp(LOG_STEP * (mels - start)))
    bins = np.arange(FFT_SAMPLES // 2 + 1) * SAMPLE_RATE / FFT_SAMPLES
    low, middle, high = (hertz[i : i + MEL_BINS, None] for i in range(3))
    return np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clip(0) * 2 / (high - low)
