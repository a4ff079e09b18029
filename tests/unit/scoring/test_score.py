"""The score of a whole clip, and what it says."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

from latentsync.audio.waveform import Waveform
from latentsync.errors import ScoreError, UsageError
from latentsync.faces.face_track import FaceTrack
from latentsync.scoring.lip_leak import LipLeak
from latentsync.scoring.plot import plot_score
from latentsync.scoring.score import Score, ScoredFrames, score_track
from latentsync.scoring.sync import SyncScore
from tests.support.sync_networks import LevelNet, brightness, frames, sound, track_at


def crafted(confidence: float, offset: int = 0, windows: int = 100) -> SyncScore:
    """All windows alike: distance 10 at every offset but one."""
    distances = np.full((windows, 31), 10.0, np.float32)
    distances[:, 15 - offset] -= confidence
    return SyncScore(distances)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(60), Fraction(30_000, 1001), Fraction(50)])
def test_score_reads_any_rate_at_25_fps(rate: Fraction) -> None:
    levels = brightness(100)
    score = score_track(track_at(levels, rate), sound(levels, 3), syncnet=LevelNet())
    assert score.sync is not None
    assert score.sync.offset_frames == -3
    assert score.sync.confidence > 5
    assert score.sync.window_count in (94, 95)


def test_score_leaves_out_frames_without_new_lips() -> None:
    """The second half of a result keeps the original lips, which do not fit the new sound."""
    levels, has_lips = brightness(120), np.arange(120) < 60
    shown = frames(np.where(has_lips, levels, levels[::-1]))
    result = ScoredFrames(range(120), lambda count: iter(shown[:count]), has_lips)
    fitting = score_track(track_at(levels), sound(levels), syncnet=LevelNet()).sync
    part = score_track(track_at(levels), sound(levels), result, syncnet=LevelNet()).sync
    whole = score_track(track_at(levels), sound(levels), result._replace(has_lips=None), syncnet=LevelNet()).sync
    assert fitting is not None
    assert part is not None
    assert whole is not None
    assert np.isfinite(part.distances).all(axis=1).sum() == 56, "windows of 5 frames inside the first 60"
    assert part.distance == pytest.approx(fitting.distance, rel=0.1)
    assert whole.distance > 2 * part.distance


def test_score_without_syncnet_is_lip_leak_alone() -> None:
    levels = brightness(100)
    silence = Waveform(sound(levels).samples * 0, 16_000)
    score = score_track(track_at(levels), silence)
    assert score.sync is None
    assert score.lip_leak == (100, 100)
    assert score.verdict == "The mouth is open in 100% of the 100 frames with silence (LipLeak)."
    assert json.loads(json.dumps(score.to_json()))["sync"] is None


def test_score_of_silence_has_no_confidence() -> None:
    levels = brightness(100)
    silence = Waveform(sound(levels).samples * 0, 16_000)
    score = score_track(track_at(levels), silence, syncnet=LevelNet())
    assert score.sync is not None
    assert score.sync.confidence < 0.5
    assert "do not clearly belong together" in score.verdict


def test_score_of_ten_frames_says_it_is_too_short() -> None:
    levels = brightness(10)
    score = score_track(track_at(levels), sound(levels), syncnet=LevelNet())
    assert score.sync is not None
    assert score.sync.window_count == 5
    assert "too short to trust. Use at least 75 frames (3 s)" in score.verdict


def test_score_of_five_frames_is_an_error() -> None:
    levels = brightness(5)
    with pytest.raises(ScoreError, match=r"clip is too short to score. It has 5 frames at 25 fps and 0.20 s of sound"):
        score_track(track_at(levels), sound(levels), syncnet=LevelNet())


def test_score_needs_boxes() -> None:
    track = track_at(brightness(30))
    bare = FaceTrack(track.source, track.points)
    with pytest.raises(UsageError, match="has no bounding boxes"):
        score_track(bare, sound(brightness(30)), syncnet=LevelNet())


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (crafted(1), "do not clearly belong together"),
        (crafted(4), "weaker than in typical real speech (6 to 9)"),
        (crafted(7), "in or above the range of typical real speech"),
        (crafted(7, 1), "in sync within a frame (offset 40 ms)"),
        (crafted(7, 3), "The sound leads the lips by 120 ms. Delay the sound by 120 ms, or add -120 to offset_ms"),
        (crafted(7, -2), "lags behind the lips by 80 ms. Start the sound 80 ms earlier, or add 80 to offset_ms"),
        (crafted(7), "The score does not measure the image quality"),
    ],
)
def test_verdict_says_what_the_numbers_mean(score: SyncScore, said: str) -> None:
    assert said in Score("clip.mp4", score).verdict


def test_verdict_gives_no_offset_of_unrelated_sound() -> None:
    assert "offset" not in Score("clip.mp4", crafted(1, 9)).verdict


def test_verdict_of_speech_without_a_pause() -> None:
    assert "no silent part" in Score("clip.mp4", lip_leak=LipLeak(0, 0)).verdict


def test_plot_marks_offset_and_weak_stretches() -> None:
    sync = crafted(7, 3, windows=250)
    sync.distances[100:150, 12] = 10  # no better than elsewhere
    picture = np.array(plot_score(Score("clip.mp4", sync)))
    assert picture.shape == (408, 1024, 3)
    shaded = (picture[320] == [0xF8, 0xD8, 0xD0]).all(axis=-1)
    assert shaded[420:600].mean() > 0.9
    assert not shaded[:390].any()
    assert not shaded[640:].any()
    assert np.array(plot_score(Score("clip.mp4"))).shape == picture.shape
    with_gap = sync.distances.copy()
    with_gap[30:60] = np.nan
    assert np.array(plot_score(Score("clip.mp4", SyncScore(with_gap)))).shape == picture.shape
