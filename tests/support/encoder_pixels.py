"""The pixels that go into an encoder, and those of a lossless file, to compare runs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np


def visible_bytes(frame: av.VideoFrame) -> bytes:
    """The planes of a frame without the padding of their rows."""
    if frame.format.name == "bgr0":
        frame = frame.reformat(format="bgr24")
    packed_bytes = frame.format.padded_bits_per_pixel // 8
    pixel_bytes = -(-frame.format.components[0].bits // 8) if frame.format.is_planar else packed_bytes
    rows = [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
    widths = [plane.width * pixel_bytes for plane in frame.planes]
    return b"".join(plane[:, :width].tobytes() for plane, width in zip(rows, widths, strict=True))


def digest_pixels(path: Path) -> str:
    """SHA-256 of all decoded frames of a video."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="rgb48le").tobytes())
    return digest.hexdigest()
