"""LipLeak: the share of silent frames in which the mouth is open, measured without a network.

KeySync (arXiv 2505.00497) lip-syncs a talking video to silence and counts the frames with an open mouth.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..audio.features import detect_speech
from ..audio.mono import Samples

OPEN_MOUTH = 0.05
"""Distance between the inner edges of the lips / width of the mouth. On three clips of speech, closed lips
measure up to 0.03, and the median of all frames is 0.16 to 0.2."""

MELS_PER_FRAME = 4  # at 25 fps


class LipLeak(NamedTuple):
    """Number of silent frames with a visible face at 25 fps, and number of these frames with an open mouth."""

    silent_frames: int
    open_frames: int

    @property
    def share(self) -> float | None:
        """The share, 0 to 1. Lower is better. None: there is no silent frame."""
        return self.open_frames / self.silent_frames if self.silent_frames else None


def lip_leak(mouth_openings: np.ndarray, samples: Samples) -> LipLeak:
    """Count the frames with an open mouth in silence.

    Args:
        mouth_openings: float64 (n,), see `faces.detection.FaceDetection`, in frames at 25 fps. NaN where unknown.
        samples: float32 (m,), 16 kHz, -1 to 1. Silence is where `audio.vad` detects no speech.
    """
    is_speech = detect_speech(samples).is_speech
    count = min(len(mouth_openings), len(is_speech) // MELS_PER_FRAME)
    is_silent = ~is_speech[: MELS_PER_FRAME * count].reshape(count, MELS_PER_FRAME).any(axis=1)
    openings = mouth_openings[:count][is_silent]
    return LipLeak(int(np.isfinite(openings).sum()), int((openings > OPEN_MOUTH).sum()))
