"""WAV files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def make_wav(path: Path, samples: np.ndarray, rate: int) -> Path:
    """Write a 16-bit WAV file and return its path.

    samples: (channels, samples), in the range of int16.
    """
    with wave.open(str(path), "wb") as out:
        out.setnchannels(len(samples))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.T.astype("<i2").tobytes())
    return path
