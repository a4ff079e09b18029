"""What the numbers of a frame mean: uint8 and uint16 reach from 0 to their largest, floating point from 0 to 1."""

from __future__ import annotations

import numpy as np


def white(frame: np.ndarray) -> float:
    """The value of full brightness: 255, 65535 or 1."""
    return float(np.iinfo(frame.dtype).max) if frame.dtype.kind == "u" else 1.0


def to_bytes(frame: np.ndarray) -> np.ndarray:
    """The frame as uint8, C-contiguous; itself if it is that."""
    if frame.dtype == np.uint16:
        frame = ((frame.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif frame.dtype != np.uint8:
        frame = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(frame)


def to_floats(frame: np.ndarray) -> np.ndarray:
    """The frame as float32 in 0..1; itself if it is that."""
    return frame if frame.dtype.kind == "f" else frame.astype(np.float32) / np.float32(white(frame))
