"""Offset of lips and sound from the mouth opening and the level of the voice, without a network."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..audio.levels import frame_levels
from ..audio.mono import Samples
from ..faces.lip_correlation import lag_correlations
from ..video.timeline import MODEL_RATE
from .sync import FRAME_MS, MAX_SHIFT

CLEAR = 5.0
"""Lowest reliable correlation * square root of the frame count. 99 % of unrelated parts of three clips are lower."""


@dataclass(frozen=True, eq=False)
class MouthSync:
    """Correlation of the mouth opening with the voice.

    correlations: float64 (31,): correlation with the sound from 15 frames earlier to 15 frames later. NaN: unknown.
    frame_count: number of frames with a known mouth opening.
    """

    correlations: np.ndarray
    frame_count: int

    @property
    def correlation(self) -> float:
        """The highest correlation, -1 to 1. Real speech has about 0.3."""
        return float(np.nanmax(self.correlations))

    @property
    def offset_frames(self) -> int:
        """How far the audio is ahead of the lips, in frames of 40 ms. Negative: the audio is late."""
        return MAX_SHIFT - int(np.nanargmax(self.correlations))

    @property
    def offset_ms(self) -> int:
        """The offset in milliseconds."""
        return FRAME_MS * self.offset_frames

    @property
    def is_clear(self) -> bool:
        """Whether the offset is reliable. A short clip, or a mouth that hardly moves, gives a random offset."""
        return self.correlation * self.frame_count**0.5 >= CLEAR


def mouth_sync(mouth_openings: np.ndarray, samples: Samples) -> MouthSync | None:
    """Compare a mouth with a sound.

    Args:
        mouth_openings: float64 (n,), see `faces.detection.FaceDetection`, in frames at 25 fps. NaN where unknown.
        samples: float32 (m,), 16 kHz, -1 to 1. The sound starts with the first frame.

    Returns:
        None if the mouth never moves, the sound never changes, or both are too short.
    """
    times = (Fraction(i) / MODEL_RATE for i in range(len(mouth_openings) + 1))
    correlations = lag_correlations(mouth_openings, frame_levels(samples, times), MODEL_RATE, MAX_SHIFT)
    if np.isnan(correlations).all():
        return None
    return MouthSync(correlations, int(np.isfinite(mouth_openings).sum()))
