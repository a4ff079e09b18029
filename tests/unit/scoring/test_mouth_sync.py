"""Offsets of the mouth opening, their sign, and the `offset_ms` that mends them."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.waveform import Waveform
from latentsync.faces.lip_correlation import MIN_OPENINGS
from latentsync.scoring.mouth_sync import mouth_sync
from latentsync.scoring.score import Score, score_track
from latentsync.scoring.sync import FRAME_MS
from tests.support.sync_networks import FRAME_SAMPLES, LOUDNESS, LevelNet, brightness, sound, track_at

COUNT = 150
FULL = 1000  # brightness of a wide open mouth


def mouth_alone(levels: np.ndarray, recording: Waveform) -> Score:
    return Score("clip.mp4", mouth_sync=mouth_sync(levels / FULL, recording.samples[0]))


def syncnet_alone(levels: np.ndarray, recording: Waveform) -> Score:
    return score_track(track_at(levels), recording, syncnet=LevelNet())


@pytest.mark.parametrize("lag_ms", [-400, -200, 0, 200, 400])
@pytest.mark.parametrize("measure", [mouth_alone, syncnet_alone])
def test_offset_of_later_sound_is_negative(measure: Callable[..., Score], lag_ms: int) -> None:
    score = measure(brightness(COUNT), sound(brightness(COUNT), lag_ms // FRAME_MS))
    assert FRAME_MS * score.offset_frames == -lag_ms


@pytest.mark.parametrize("offset_ms", [-400, -120, 200, 360])
@pytest.mark.parametrize("measure", [mouth_alone, syncnet_alone])
def test_offset_ms_of_the_verdict_mends_the_offset(measure: Callable[..., Score], offset_ms: int) -> None:
    """The lips follow the driving audio exactly: a frame is as bright, or the mouth as open, as it is loud."""
    recording = sound(brightness(COUNT))

    def result(offset_ms: int) -> Score:
        driving = prepare_driving_audio(recording, None, Fraction(offset_ms, 1000)).samples.reshape(COUNT, -1)
        assert driving.shape[1] == FRAME_SAMPLES
        return measure(driving.double().std(dim=1).numpy() * 32768 / LOUDNESS, recording)

    score = result(offset_ms)
    assert FRAME_MS * score.offset_frames == offset_ms
    (change,) = re.findall(r"add (-?\d+) to offset_ms", score.verdict)
    mended = result(offset_ms + int(change))
    assert mended.offset_frames == 0
    assert "in sync within a frame (offset 0 ms)" in mended.verdict


def test_mouth_sync_of_other_speech_is_not_clear() -> None:
    """An unclear offset is not reported as the offset of the clip."""
    score = mouth_alone(brightness(COUNT)[::-1], sound(brightness(COUNT)))
    assert score.mouth_sync is not None
    assert not score.mouth_sync.is_clear
    assert score.offset_frames == 0
    assert "gives no clear offset" in score.verdict
    assert "offset_ms" not in score.verdict


def test_mouth_sync_ignores_frames_without_the_face() -> None:
    openings = brightness(COUNT) / FULL
    openings[40:70] = np.nan
    result = mouth_sync(openings, sound(brightness(COUNT), 5).samples[0])
    assert result is not None
    assert (result.offset_frames, result.frame_count) == (-5, COUNT - 30)


@pytest.mark.parametrize("case", ["still mouth", "silence", "short", "unknown openings"])
def test_mouth_sync_is_none_where_nothing_moves(case: str) -> None:
    openings, samples = brightness(COUNT) / FULL, sound(brightness(COUNT)).samples[0]
    if case == "still mouth":
        openings[:] = 0.2
    elif case == "silence":
        samples = torch.zeros_like(samples)
    elif case == "short":
        openings = openings[: MIN_OPENINGS - 1]
    else:
        openings[:] = np.nan
    assert mouth_sync(openings, samples) is None
