"""The sample clip with grain, and the detail of the skin and of the new mouth in its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latentsync.faces.warp import opencv
from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import Sample

CHIN = slice(300, 340), slice(215, 265)
"""Rows and columns of the new mouth, without an edge of its mask."""
FOREHEAD = slice(150, 185), slice(215, 265)
GRAIN = 6.0  # levels of 8 bits, standard deviation


def write_grainy(sample: Sample, path: Path) -> Path:
    """Write the video of the sample with grain, without loss."""
    source, random = VideoFile(sample.video), np.random.default_rng(8)
    with VideoWriter(path, rate=source.rate, height=source.height, width=source.width) as writer:
        for frame in source.read(range(source.frame_count)):
            writer.write((frame + random.normal(0, GRAIN, (*frame.shape[:2], 1))).clip(0, 255).astype(np.uint8))
    return path


def detail(frames: list[np.ndarray], part: tuple[slice, slice]) -> float:
    """Mean standard deviation of the second differences of the brightness of a part, in levels of 8 bits."""
    return float(np.mean([opencv().Laplacian(frame[part].mean(axis=-1), -1).std() for frame in frames]))
