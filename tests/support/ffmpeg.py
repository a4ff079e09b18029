"""The `ffmpeg` and `ffprobe` programs: they make media for tests, and tell what is in them, independently of PyAV."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")


def run(*arguments: object) -> bytes:
    """What `ffmpeg` writes to its output."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')[-600:]}")
    return done.stdout


def probe(path: Path, *entries: str) -> dict[str, Any]:
    """Properties of the first video stream and its frames, or of what `entries` name."""
    command = ["ffprobe", "-v", "error", *entries, "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)


def frames(path: Path, height: int, width: int, pix_fmt: str = "rgb24", matrix: str = "auto") -> np.ndarray:
    """Every frame as it is stored: (frames, height, width, components), scaled to that size.

    Args:
        matrix: the color matrix of the frames.
    """
    scale = f"scale={width}:{height}:in_color_matrix={matrix}"
    output = ("-fps_mode", "passthrough", "-vf", scale, "-f", "rawvideo", "-pix_fmt", pix_fmt, "-")
    raw = run("-noautorotate", "-i", path, "-map", "0:v:0", *output)
    components = {"rgb24": 3, "rgb48le": 3, "rgba": 4, "rgba64le": 4}[pix_fmt]
    return np.frombuffer(raw, np.uint16 if "le" in pix_fmt else np.uint8).reshape(-1, height, width, components)


def times(path: Path, stream: str) -> list[Fraction]:
    """When each frame of a stream ("v:0") appears, in seconds."""
    found = probe(path, "-select_streams", stream, "-show_entries", "frame=best_effort_timestamp:stream=time_base")
    time_base = Fraction(found["streams"][0]["time_base"])
    stamps = [frame.get("best_effort_timestamp") for frame in found["frames"]]
    return [stamp * time_base for stamp in stamps if stamp is not None]


def sound(path: Path, rate: int, channels: int) -> np.ndarray:
    """The audio from its first sample, resampled: float32 (channels, samples)."""
    raw = run("-noautorotate", "-i", path, "-map", "0:a:0", "-ar", rate, "-ac", channels, "-f", "f32le", "-")
    return np.frombuffer(raw, np.float32).reshape(-1, channels).T
