"""Ten minutes of audio and 400 s of video at 29.97 fps, in every length mode.

Lips are measured at the start, in the middle and at the end.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from latentsync import AudioSettings, Waveform
from latentsync.video.timeline import LengthMode
from latentsync.video.video_file import VideoFile
from tests.lip_sync import MIN_CORRELATION, SECONDS, Stage
from tests.support.sync_clip import check_sync, clip
from tests.support.talking import QUICK, MouthMeter, level, mono, sync, voice


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> VideoFile:
    return clip(tmp_path_factory.mktemp("long_clip") / "clip.mp4", Fraction(30000, 1001), 400)


@pytest.mark.parametrize("length", get_args(LengthMode))
def test_ten_minutes_stay_in_sync(long_clip: VideoFile, length: LengthMode, tmp_path: Path) -> None:
    check_sync(long_clip, 500 if length == "audio (stretch video)" else 600, length, tmp_path / "out.mp4")


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)], ids=str)
def test_lips_follow_throughout_ten_minutes(shared: Path, tmp_path: Path, rate: Fraction) -> None:
    """The miniature hears one voice at the start, in the middle and at the end. Silent frames are not sampled.

    The lips of the three times open in the same frames: they do not drift.
    """
    spoken = voice(SECONDS)
    parts = (0, 299, 600 - SECONDS)
    samples = torch.zeros(1, 600 * spoken.rate)
    for start in parts:
        begin = round(start * spoken.rate)
        samples[:, begin : begin + spoken.samples.shape[1]] = spoken.samples
    sound = Waveform(samples, spoken.rate)
    with MouthMeter(shared / "models" / "face_landmarker.task") as meter:
        stage = Stage(tmp_path, meter)
        result = stage.pipeline(
            stage.track(rate).source,
            sound,
            face=stage.track(rate),
            fps="source",
            audio_settings=AudioSettings(silence="keep original"),
            **QUICK,
        )
        # without two frames at each end, which can be silent and original
        ranges = [range(round(start * rate) + 2, round((start + SECONDS) * rate) - 2) for start in parts]
        wanted = frozenset(chain.from_iterable(ranges))
        openings = {i: meter.opening(frame) for i, frame in enumerate(result.frames()) if i in wanted}
    levels = level(mono(sound), sound.rate, round(600 * rate), rate)
    spoken_openings = [np.array([openings[i] for i in frames]) for frames in ranges]
    for frames, opening in zip(ranges, spoken_openings, strict=True):
        assert sync(opening, levels[frames.start : frames.stop]).correlation >= MIN_CORRELATION, frames
    for later in spoken_openings[1:]:
        assert sync(later, spoken_openings[0]).lag == 0
