"""A score needs no more RAM for a longer video, except for its sound."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.audio.waveform import SAMPLE_RATE
from latentsync.output.video_writer import VideoWriter
from tests.support.paths import REPOSITORY

SHORT_MINUTES, LONG_MINUTES = 2, 10
SIDE_PX = 96
SOUND_BYTES = 4 + 4 + 2 + 2
"""For each sample at 16 kHz: the waveform, its mean channel, its 16-bit integers, and these while they are joined."""
MAX_GROWTH_MIB = 40
"""Of the rest: 26 were measured. All features of 8 minutes have 49 MiB, all frames 330, and all crops 1800."""


def peak_mib(folder: Path, minutes: int) -> float:
    """Peak of a process that scores a video of this length. The network costs nothing, and nothing is detected."""
    video = folder / f"{minutes}.mp4"
    with VideoWriter(video, rate=Fraction(25), height=SIDE_PX, width=SIDE_PX, crf=30) as writer:
        for number in range(minutes * 60 * 25):
            writer.write(np.full((SIDE_PX, SIDE_PX, 3), 40 + number % 150, np.uint8))
    command = [sys.executable, "-m", "benchmarks.score", video, "--seconds", 60 * minutes, "--no-faces", "--no-network"]
    told = subprocess.run([*map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    (peak,) = re.findall(rf"^{60 * minutes}\.0 s of .*, peak (\d+) MiB resident$", told, re.MULTILINE)
    return float(peak)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is in other units elsewhere")
def test_score_memory_grows_only_with_the_sound(tmp_path: Path) -> None:
    growth = peak_mib(tmp_path, LONG_MINUTES) - peak_mib(tmp_path, SHORT_MINUTES)
    sound = (LONG_MINUTES - SHORT_MINUTES) * 60 * SAMPLE_RATE * SOUND_BYTES / 2**20
    assert growth - sound < MAX_GROWTH_MIB, (growth, sound)
