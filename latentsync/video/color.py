"""What the numbers of a frame mean: uint8 and uint16 reach from 0 to their largest, floating point from 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError

UNSPECIFIED = 2  # of ITU-T H.273, for primaries, transfer and matrix alike


MATRICES = {1: "ITU709", 5: "ITU601", 6: "ITU601", 9: "BT2020"}
"""Matrix of ITU-T H.273 -> PyAV's name."""


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """What the numbers of a video's pixels mean, as numbers of ITU-T H.273.

    primaries, transfer: carried from the source, since they describe its red, green and blue.
    matrix: how they become luma and chroma.
    """

    primaries: int = 1
    transfer: int = 1
    matrix: int = 1

    @classmethod
    def said(cls, primaries: int, transfer: int, matrix: int) -> ColorSpace:
        """Of a source that may say nothing of each, or name a matrix that cannot be written: BT.709 stands in."""
        usual = cls()
        return cls(
            usual.primaries if primaries == UNSPECIFIED else primaries,
            usual.transfer if transfer == UNSPECIFIED else transfer,
            matrix if matrix in MATRICES else usual.matrix,
        )

    def __post_init__(self) -> None:
        if self.matrix not in MATRICES:
            raise UsageError(f"colors can be written with the matrices {sorted(MATRICES)} of H.273, not {self.matrix}")


BT709 = ColorSpace()


def max_value(frame: np.ndarray) -> float:
    """The value of full brightness: 255, 65535 or 1."""
    return float(np.iinfo(frame.dtype).max) if frame.dtype.kind == "u" else 1.0


def to_uint8(frame: np.ndarray) -> np.ndarray:
    """The frame as uint8, C-contiguous; itself if it is that."""
    if frame.dtype == np.uint16:
        frame = ((frame.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif frame.dtype != np.uint8:
        frame = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(frame)


def to_float32(frame: np.ndarray) -> np.ndarray:
    """The frame as float32 in 0..1; itself if it is that."""
    return frame if frame.dtype.kind == "f" else frame.astype(np.float32) / np.float32(max_value(frame))
