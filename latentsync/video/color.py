"""Color space and bit depth of frames: uint8 and uint16 use their full range, floating point is 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError

UNSPECIFIED = 2  # in ITU-T H.273, for primaries, transfer and matrix alike
MATRICES = {1: "bt709", 5: "bt470", 6: "smpte170m", 9: "bt2020"}
"""Matrix number of ITU-T H.273 -> name in FFmpeg's scale filter."""
UNREADABLE_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 11: "SMPTE 2085", 14: "ICtCp"}
"""Matrix number of ITU-T H.273 -> name, for matrices that FFmpeg does not convert to RGB."""
HD_SIZE = (1280, 720)  # pixels. From this width or height, players use BT.709 for videos without color tags


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """Color space of a video, in numbers of ITU-T H.273. The default is BT.709.

    primaries, transfer: meaning of red, green and blue, copied from the original video.
    matrix: conversion of RGB to luma and chroma.
    """

    primaries: int = 1
    transfer: int = 1
    matrix: int = 1

    def __post_init__(self) -> None:
        if self.matrix not in MATRICES:
            raise UsageError(
                f"The color matrix {self.matrix} cannot be written. Use one of {', '.join(map(str, sorted(MATRICES)))}."
            )

    @classmethod
    def from_stream(cls, primaries: int, transfer: int, matrix: int) -> ColorSpace:
        """The color space of a stream, with BT.709 for values that are unspecified or that a file cannot store."""
        return cls(
            BT709.primaries if primaries == UNSPECIFIED else primaries,
            BT709.transfer if transfer == UNSPECIFIED else transfer,
            matrix if matrix in MATRICES else BT709.matrix,
        )


BT709 = ColorSpace()


def max_value(frame: np.ndarray) -> float:
    """The value of full brightness in the dtype of a frame: 255, 65535 or 1."""
    return float(np.iinfo(frame.dtype).max) if frame.dtype.kind == "u" else 1.0


def to_uint8(frame: np.ndarray) -> np.ndarray:
    """Convert a frame to C-contiguous uint8. A frame that is already C-contiguous uint8 is the result itself."""
    if frame.dtype == np.uint16:
        frame = ((frame.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif frame.dtype != np.uint8:
        frame = np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(frame)


def to_float32(frame: np.ndarray) -> np.ndarray:
    """Convert a frame to float32 in 0..1. A float32 frame is the result itself."""
    return frame if frame.dtype.kind == "f" else frame.astype(np.float32) / np.float32(max_value(frame))
