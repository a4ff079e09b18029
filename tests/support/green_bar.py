"""The sample clip with a green bar in front of the mouth, which the toy segmenter takes for an object."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import Sample
from tests.support.toy_segmenter import CLASS_COLORS

FIRST_FRAME = 3
UPPER_LIP = 13
EDGE_PX = 12
"""Width of the soft edge of the mask in the frame, at most."""


def write_green_bar(sample: Sample, path: Path) -> tuple[slice, slice]:
    """Write the video without loss. The bar reaches from the upper lip to the bottom, from FIRST_FRAME on.

    Returns:
        The rows and columns that are surely behind the bar's edge, in every frame.
    """
    source = VideoFile(sample.video)
    stored = json.loads(sample.landmarks.read_text(encoding="utf-8"))
    x, y = np.array(stored["frames"][0][0]["landmarks_xy"])[UPPER_LIP].astype(int)
    bar = slice(y - 10, y + 120), slice(x - 30, x + 30)
    with VideoWriter(path, rate=source.rate, height=source.height, width=source.width) as writer:
        for i, frame in enumerate(source.read(range(source.frame_count))):
            drawn = frame.copy()
            if i >= FIRST_FRAME:
                drawn[bar] = CLASS_COLORS[-1]
            writer.write(drawn)
    return tuple(slice(side.start + EDGE_PX, side.stop - EDGE_PX) for side in bar)
