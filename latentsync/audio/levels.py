"""The level of the speech in the sound of a video, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from .mono import Samples
from .waveform import BLOCK_SAMPLES, SAMPLE_RATE

SPEECH_HZ = (300, 4000)  # formants: their level follows the opening of the mouth, see 10.1371/journal.pcbi.1000436
MIN_RMS = 1e-4  # share of full scale. The noise of 16-bit audio is lower


def frame_levels(samples: Samples, times: Iterable[Fraction]) -> np.ndarray:
    """Level of the sound during each frame.

    Args:
        samples: float32 (m,), 16 kHz, -1 to 1, see `mono.mono_sound`.
        times: n + 1 increasing times in seconds from the start of the sound: the start of each frame, and the end of
            the last frame.

    Returns:
        float64 (n,): RMS between 300 and 4000 Hz, 0 to 1. NaN beyond the end of the sound.
    """
    from scipy.signal import butter, sosfilt

    bounds = np.fromiter((round(seconds * SAMPLE_RATE) for seconds in times), np.int64)
    sections = np.asarray(butter(2, SPEECH_HZ, "bandpass", fs=SAMPLE_RATE, output="sos"))
    energy, state, start = np.zeros(len(bounds) + 1), np.zeros((len(sections), 2)), 0  # energy[i]: before bounds[i]
    for block in samples.split(BLOCK_SAMPLES):
        filtered, state = sosfilt(sections, block.double().numpy(), zi=state)
        frames = np.searchsorted(bounds, np.arange(start, start + len(block)), side="right")
        energy += np.bincount(frames, np.square(filtered), len(energy))
        start += len(block)
    is_known = (bounds[:-1] < bounds[1:]) & (bounds[1:] <= len(samples))
    rms = np.sqrt(energy[1:-1][is_known] / np.diff(bounds)[is_known])
    levels = np.full(len(is_known), np.nan)
    levels[is_known] = np.where(rms < MIN_RMS, 0.0, rms)
    return levels
