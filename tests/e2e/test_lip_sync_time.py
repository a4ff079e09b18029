"""Every output frame shows the right source frame, and every click in the audio keeps its time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from latentsync.video.timeline import LengthMode, output_rate
from latentsync.video.video_file import VideoFile
from tests.support.sync_clip import TICK_SECONDS, check_file, check_stretched, check_sync, clicks, clip, synced


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> VideoFile:
    return clip(tmp_path_factory.mktemp("short_clip") / "clip.mp4", Fraction(30000, 1001), 60)


@pytest.mark.parametrize("length", get_args(LengthMode))
def test_90_seconds_stay_in_sync(short_clip: VideoFile, length: LengthMode, tmp_path: Path) -> None:
    check_sync(short_clip, 75 if length == "audio (stretch video)" else 90, length, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("rate", "length"),
    [(Fraction(24000, 1001), "shortest"), (Fraction(50), "video"), (Fraction(60000, 1001), "audio (ping-pong)")],
)
def test_video_longer_than_audio_stays_in_sync(tmp_path: Path, rate: Fraction, length: LengthMode) -> None:
    source = clip(tmp_path / "clip.mp4", rate, 40)
    expected = synced(source, clicks(22), length, tmp_path / "out.mp4")
    made = output_rate(rate)
    assert len(expected) == round(made * (source.duration_seconds if length == "video" else 22))
    late = [i / made - shown / rate for i, shown in enumerate(expected)]
    assert -TICK_SECONDS <= min(late) <= max(late) < 1 / rate, "each at its own instant"
    check_file(tmp_path / "out.mp4", expected, made, 22)


@pytest.mark.parametrize(("rate", "seconds"), [(Fraction(24), 16), (Fraction(30000, 1001), 22), (Fraction(50), 25)])
def test_stretched_video_stays_in_sync(tmp_path: Path, rate: Fraction, seconds: int) -> None:
    """The picture of each moment and the click of each moment come at the same place, at 0.8, 1.1 and 1.25."""
    source = clip(tmp_path / "clip.mp4", rate, 20)
    expected = synced(source, clicks(seconds), "audio (stretch video)", tmp_path / "out.mp4")
    check_stretched(expected, source, seconds)
    check_file(tmp_path / "out.mp4", expected, output_rate(rate), seconds)
