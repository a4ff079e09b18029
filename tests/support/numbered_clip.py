"""Clips whose every frame shows its own number as a pattern of bars, and recordings of test tones."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np

BITS = 10
BAR_PX = 8
HEIGHT, WIDTH = 48, BITS * BAR_PX


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The number in binary: black and white bars, the lowest bit on the left, in the upper half; the lower is gray."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[: height // 2, bit * BAR_PX : (bit + 1) * BAR_PX] = 255 * (number >> bit & 1)
    return picture


def number_of(picture: np.ndarray) -> int:
    row = (
        picture[: picture.shape[0] // 4, : BITS * BAR_PX].mean(axis=(0, 2)).reshape(BITS, BAR_PX)[:, 2:-2].mean(axis=1)
    )
    return sum(int(level > 128) << bit for bit, level in enumerate(row))


def numbers(pictures: Iterable[np.ndarray]) -> list[int]:
    return [number_of(picture) for picture in pictures]


def make_clip(
    path: Path | BytesIO,
    pts: Iterable[int],
    *,
    tick: Fraction = Fraction(1, 25),
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container: str = "mp4",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pixels: str = "yuv420p",
) -> None:
    with av.open(path if isinstance(path, BytesIO) else str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {"bf": "3", "g": "12", "crf": "10"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else pixels
        stream.codec_context.time_base = tick
        for number, shown_at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts, frame.time_base = shown_at, tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def turn(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a display matrix into the mp4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(bytes(data))


def tone(channels: int, rate: int, seconds: float = 1.0) -> np.ndarray:
    """A different tone in each channel, at half of full scale, int16 (channels, samples)."""
    time = np.arange(int(rate * seconds)) / rate
    return np.stack([np.sin(2 * np.pi * 220 * (c + 1) * time) * 16384 for c in range(channels)])


def packets(path: Path) -> list[tuple[int, int]]:
    """Where each packet lies in the file, in decoding order: position and size."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
