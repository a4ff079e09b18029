"""Ten minutes of audio and 400 s of video at 29.97 fps, in every length mode."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from latentsync.video.timeline import LengthMode
from latentsync.video.video_file import VideoFile
from tests.support.sync_clip import check_sync, clip


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> VideoFile:
    return clip(tmp_path_factory.mktemp("long_clip") / "clip.mp4", Fraction(30000, 1001), 400)


@pytest.mark.parametrize("length", get_args(LengthMode))
def test_ten_minutes_stay_in_sync(long_clip: VideoFile, length: LengthMode, tmp_path: Path) -> None:
    check_sync(long_clip, 500 if length == "audio (stretch video)" else 600, length, tmp_path / "out.mp4")
