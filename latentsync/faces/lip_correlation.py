"""Correlation of a mouth opening with the level of a voice, at several lags.

Mouth and sound share movements of 2 to 7 Hz, the rate of syllables (10.1371/journal.pcbi.1000436). The difference of
two Gaussian filters keeps these movements.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

SHORT_SECONDS, LONG_SECONDS = 0.032, 0.08
"""Standard deviations of the Gaussian filters. With these values, the lags of three clips of real speech were best."""
MIN_CHANGES = np.array([0.01, 1e-9])
"""Smallest range of a moving mouth's opening, and of a changing sound level. Jitter of a still mouth is smaller."""
MIN_OPENINGS = 25  # frames with sound and a known mouth opening. Fewer frames are not compared


def lag_correlations(openings: np.ndarray, levels: np.ndarray, rate: Fraction, max_lag: int) -> np.ndarray:
    """Compare each frame with the sound of the frames around it.

    Args:
        openings: float64 (n,), see `faces.detection.FaceDetection`. NaN where unknown.
        levels: float64 (n,), see `audio.levels.frame_levels`. NaN where unknown.
        rate: frames per second.
        max_lag: largest lag, in frames.

    Returns:
        float64 (2 * max_lag + 1,), -1 to 1: correlation with the sound from `max_lag` frames earlier to `max_lag`
        frames later. NaN if the mouth never moves, the sound never changes, or fewer than MIN_OPENINGS frames have both
        values.
    """
    openings, padded = _syllables(openings, rate), np.pad(_syllables(levels, rate), max_lag, constant_values=np.nan)
    correlations = np.full(2 * max_lag + 1, np.nan)
    for shift in range(len(correlations)):
        shifted = padded[shift : shift + len(levels)]
        both = np.stack([openings, shifted])[:, np.isfinite(openings) & np.isfinite(shifted)]
        if both.shape[1] >= MIN_OPENINGS and (np.ptp(both, axis=1) > MIN_CHANGES).all():
            correlations[shift] = np.corrcoef(both)[0, 1]
    return correlations


def _syllables(values: np.ndarray, rate: Fraction) -> np.ndarray:
    """The movements of a series (n,) at the rate of syllables. NaN values stay NaN."""
    from scipy.ndimage import gaussian_filter1d

    is_known = np.isfinite(values)

    def smoothed(seconds: float) -> np.ndarray:
        sums, weights = (
            gaussian_filter1d(series, seconds * float(rate), mode="constant")
            for series in (np.where(is_known, values, 0.0), is_known.astype(float))
        )
        return sums / np.where(is_known, weights, np.nan)

    return smoothed(SHORT_SECONDS) - smoothed(LONG_SECONDS)
