"""Mel-frequency cepstral coefficients for SyncNet, with the defaults of python_speech_features 0.6."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from ..audio.mono import Samples
from ..audio.waveform import SAMPLE_RATE
from ..models.syncnet import CEPSTRA

FRAME_SAMPLES = 400  # 25 ms, with a rectangular window
HOP_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512
MEL_FILTERS = 26
LIFTER = 22
PRE_EMPHASIS = 0.97


class PcmSamples:
    """Samples (n,) of -1 to 1 as 16-bit integers. Reading a part converts only this part."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        return (self._samples[part] * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()


def num_columns(num_samples: int) -> int:
    """Number of MFCC columns of a recording."""
    return 1 + max(-(-(num_samples - FRAME_SAMPLES) // HOP_SAMPLES), 0)


def mfcc(samples: np.ndarray | PcmSamples, start: int = 0, stop: int | None = None) -> np.ndarray:
    """MFCC columns `start` to `stop` of a recording, 100 columns per second. The default is all columns.

    Args:
        samples: (n,), 16 kHz, in the range of 16-bit integers, the whole recording. The function reads only a part.

    Returns:
        float32 (13, stop - start). The first row is the logarithm of the energy.
    """
    from scipy.fft import dct

    stop = num_columns(len(samples)) if stop is None else stop
    first, end = start * HOP_SAMPLES, (stop - 1) * HOP_SAMPLES + FRAME_SAMPLES
    block = np.zeros(end - first + 1)  # from one sample earlier, for the pre-emphasis
    known = samples[max(first - 1, 0) : end]
    offset = max(1 - first, 0)
    block[offset : offset + len(known)] = known
    emphasized = block[1:] - PRE_EMPHASIS * block[:-1]
    emphasized[max(len(samples) - first, 0) :] = 0  # zero padding comes after the pre-emphasis
    frames = np.lib.stride_tricks.sliding_window_view(emphasized, FRAME_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames, FFT_SAMPLES)) ** 2 / FFT_SAMPLES
    tiny = np.finfo(np.float64).eps  # replaces zeros before the logarithm
    energy, bands = power.sum(axis=1), power @ _mel_filters().T
    cepstra = np.asarray(dct(np.log(np.where(bands == 0, tiny, bands)), norm="ortho"))[:, :CEPSTRA]
    cepstra *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(CEPSTRA) / LIFTER)
    cepstra[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return cepstra.T.astype(np.float32)


@cache
def _mel_filters() -> np.ndarray:
    """Triangular filters, evenly spaced in mel from 0 to 8 kHz: (26, 257)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, MEL_FILTERS + 2) / 2595) - 1)
    edges = np.floor((FFT_SAMPLES + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(FFT_SAMPLES // 2 + 1)
    low, middle, high = (edges[i : i + MEL_FILTERS, None] for i in range(3))
    rising = (bins - low) / np.maximum(middle - low, 1)
    falling = (high - bins) / np.maximum(high - middle, 1)
    return np.where((low <= bins) & (bins < middle), rising, 0) + np.where((middle <= bins) & (bins < high), falling, 0)
