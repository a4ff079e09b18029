"""A score needs no more RAM for a longer video, except for its index and the numbers of each frame."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.audio.waveform import Waveform
from latentsync.output.video_writer import VideoWriter
from tests.support.paths import REPOSITORY

SHORT_MINUTES, LONG_MINUTES = 2, 10
SIDE_PX = 96
MAX_GROWTH_MIB = 35
"""13 were measured. Of 8 minutes, the sound at 16 kHz has 29 MiB, the sound at 48 kHz 176, all features 49, and all
frames 330."""


def peak_mib(folder: Path, minutes: int) -> float:
    """Peak of a process that scores a video of this length. The network costs nothing, and nothing is detected."""
    video, rate = folder / f"{minutes}.mp4", 48_000
    second = 0.1 * torch.randn(2, rate, generator=torch.Generator().manual_seed(0))
    sound = Waveform(second.repeat(1, 60 * minutes), rate)
    with VideoWriter(video, rate=Fraction(25), height=SIDE_PX, width=SIDE_PX, crf=30, waveform=sound) as writer:
        for number in range(minutes * 60 * 25):
            writer.write(np.full((SIDE_PX, SIDE_PX, 3), 40 + number % 150, np.uint8))
    command = [sys.executable, "-m", "benchmarks.score", video, "--seconds", 60 * minutes, "--no-faces", "--no-network"]
    told = subprocess.run([*map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    (peak,) = re.findall(rf"^{60 * minutes}\.0 s of .*, peak (\d+) MiB resident$", told, re.MULTILINE)
    return float(peak)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is in other units elsewhere")
def test_score_memory_does_not_grow_with_the_sound(tmp_path: Path) -> None:
    growth = peak_mib(tmp_path, LONG_MINUTES) - peak_mib(tmp_path, SHORT_MINUTES)
    assert growth < MAX_GROWTH_MIB, growth
