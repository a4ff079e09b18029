"""Voice activity detection: per-band SNR over an adaptive noise floor, with hysteresis.

The noise floor of a band is the power of the quiet parts of the audio within 15 s. The noise floor
is never lower than 22 dB below the loud parts of the band, so quiet music also counts as background.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.constants import MEL_RATE
from ..models.whisper import MEL_BINS
from .mel import MIN_POWER

log = logging.getLogger(__name__)

FIRST_BIN = 4  # the first mel bin in a band, at about 150 Hz. Mains hum is lower
BINS_PER_BAND = 4
NUM_BANDS = (MEL_BINS - FIRST_BIN) // BINS_PER_BAND
SMOOTHING_MELS = 5  # 50 ms: two or three pitch periods of a deep voice
QUIET_QUANTILE = 0.1  # of the powers within a second. It is the background of that second
REACH_SECONDS = 15  # on each side of a second, from which its noise floor is computed
FLOOR_QUANTILE = 0.2  # of the background of these seconds. A gap of digital silence is not the floor
LOUD_QUANTILE = 0.9  # of the highest power of each second
RANGE_DB = 22.0  # from the loud parts down to the lowest possible floor
MAX_SNR_DB = 30.0  # per band. A single whistle is not speech
HYSTERESIS = 0.6  # of the threshold: speech that has started continues above it
LEAD_MELS = 12  # 120 ms: lips part before the sound, and a fade over three frames ends when it starts


@dataclass(frozen=True, eq=False)
class VoiceActivity:
    """The detected speech of a recording, with 100 values per second.

    snr_db: float32 (mel frames,): SNR over the noise floor, mean of the bands.
    is_speech: bool (mel frames,).
    threshold_db: SNR at which speech starts.
    """

    snr_db: np.ndarray
    is_speech: np.ndarray
    threshold_db: float

    def __repr__(self) -> str:
        return f"VoiceActivity({self.is_speech.mean():.0%} of {len(self.is_speech) / MEL_RATE:.2f} s)"


def band_power(power: Tensor) -> Tensor:
    """Sum mel power (80, n) over 19 bands: float32 (19, n)."""
    return power[FIRST_BIN:].unflatten(0, (NUM_BANDS, BINS_PER_BAND)).sum(dim=1).clamp_min(MIN_POWER)


def detect_speech(bands: Tensor, threshold_db: float, hangover_s: float) -> VoiceActivity:
    """Find the speech in a recording.

    Args:
        bands: (19, mel frames), see `band_power`.
        threshold_db: SNR at which speech starts.
        hangover_s: seconds for which speech continues after the SNR has fallen.
    """
    activity = threshold(snr_db(bands), threshold_db, hangover_s)
    if not activity.is_speech.any():
        log.info(
            "Found no speech: the SNR reaches %.1f dB and the threshold is %g dB", activity.snr_db.max(), threshold_db
        )
    return activity


def snr_db(bands: Tensor) -> Tensor:
    """SNR of a recording over its noise floor: (mel frames,) in dB, the mean of the bands (bands, mel frames)."""
    total = torch.zeros(bands.shape[1])
    for band in bands:  # one at a time: an hour of all bands takes 27 MB
        half = SMOOTHING_MELS // 2
        power = F.avg_pool1d(F.pad(band[None], (half, half), mode="replicate"), SMOOTHING_MELS, 1)[0]
        floor = noise_floor(power).repeat_interleave(MEL_RATE)[: len(power)]
        total += (power / floor).log10().mul(10).clamp(0, MAX_SNR_DB)
    return total / len(bands)


def noise_floor(power: Tensor) -> Tensor:
    """Background power around each second, (seconds,), from the power of one band, (mel frames,)."""
    missing = -len(power) % MEL_RATE  # mel frames that the last second lacks
    quiet = F.pad(power, (0, missing), value=torch.nan).view(-1, MEL_RATE).nanquantile(QUIET_QUANTILE, dim=1)
    loud = F.pad(power, (0, missing)).view(-1, MEL_RATE).amax(dim=1).quantile(LOUD_QUANTILE)
    around = F.pad(quiet, (REACH_SECONDS, REACH_SECONDS), value=torch.nan).unfold(0, 2 * REACH_SECONDS + 1, 1)
    return around.nanquantile(FLOOR_QUANTILE, dim=1).clamp_min(loud / 10 ** (RANGE_DB / 10))


def threshold(snr: Tensor, threshold_db: float, hangover_s: float) -> VoiceActivity:
    """Find each range of speech: the SNR stays above 60 % of the threshold, and exceeds the threshold at least once.

    Speech also covers the 120 ms before such a range and the `hangover_s` seconds after it.

    Args:
        snr: float32 (mel frames,) in dB.
    """
    snr_db = snr.numpy()
    is_above, is_loud = snr_db > HYSTERESIS * threshold_db, snr_db > threshold_db
    edges = np.flatnonzero(np.diff(is_above, prepend=False, append=False))
    is_speech = np.zeros(len(snr_db), dtype=bool)
    for start, stop in edges.reshape(-1, 2):
        if is_loud[start:stop].any():
            is_speech[max(start - LEAD_MELS, 0) : stop + round(hangover_s * MEL_RATE)] = True
    return VoiceActivity(snr_db, is_speech, threshold_db)
