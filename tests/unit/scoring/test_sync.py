"""Offset, distance and confidence, with a network whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.audio.mono import mono_sound
from latentsync.errors import ScoreError
from latentsync.scoring import sync
from latentsync.scoring.sync import SyncScore, num_windows, score_sync
from tests.support.sync_networks import LevelNet, boxes, brightness, frames, sound

COUNT = 90


def score(levels: np.ndarray, lag: int = 0, places: np.ndarray | None = None, shots: np.ndarray | None = None):  # noqa: ANN201
    count = len(levels)
    return score_sync(
        iter(frames(levels)),
        boxes(count) if places is None else places,
        np.zeros(count, int) if shots is None else shots,
        mono_sound(sound(levels, lag), "audio").samples,
        LevelNet(),
    )


@pytest.mark.parametrize("lag", [-7, -1, 0, 4, 15])
def test_sync_offset_is_the_lead_of_the_sound(lag: int) -> None:
    result = score(brightness(COUNT), lag)
    assert result.offset_frames == -lag
    assert result.offset_ms == -40 * lag
    assert result.window_count == COUNT - 5
    assert result.confidence > 5


def test_sync_distance_and_confidence_follow_their_definitions() -> None:
    result = score(brightness(COUNT))
    means = result.distances.astype(np.float64).mean(axis=0)
    assert result.distance == pytest.approx(means.min())
    assert result.confidence == pytest.approx(np.median(means) - means.min())
    assert result.distances.shape == (COUNT - 5, 31)
    late = result.distances[0, :15]
    level = brightness(COUNT)[:5].mean()
    np.testing.assert_allclose(late, level, rtol=1e-3)  # zeros stand for the sound before the recording


def test_sync_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score(brightness(COUNT)).distances
    monkeypatch.setattr(sync, "BATCH_WINDOWS", 7)
    np.testing.assert_allclose(score(brightness(COUNT)).distances, whole, atol=1e-4)


def test_sync_leaves_out_windows_without_the_face() -> None:
    places = boxes(COUNT)
    places[30:40] = np.nan
    places[44:46] = np.nan  # the four frames between are too few
    result = score(brightness(COUNT), 2, places)
    missing = np.flatnonzero(np.isnan(result.distances[:, 0]))
    assert missing.tolist() == list(range(26, 46))
    assert result.offset_frames == -2
    assert np.isnan(result.confidence_over_time[missing]).all()
    assert np.isfinite(np.delete(result.confidence_over_time, missing)).all()


def test_sync_no_window_spans_a_cut() -> None:
    shots = np.repeat([0, 1], [50, 40])
    result = score(brightness(COUNT), shots=shots)
    assert np.flatnonzero(np.isnan(result.distances[:, 0])).tolist() == [46, 47, 48, 49]


def test_sync_marks_the_stretch_where_the_lips_differ() -> None:
    levels = brightness(COUNT)
    other = levels.copy()
    other[40:65] = brightness(COUNT)[::-1][40:65]
    result = score_sync(
        iter(frames(other)), boxes(COUNT), np.zeros(COUNT, int), mono_sound(sound(levels), "audio").samples, LevelNet()
    )
    (weak,) = result.weak_ranges
    assert weak.start >= 36
    assert weak.stop <= 68


@pytest.mark.parametrize(
    ("frames", "samples", "windows"), [(30, 19_200, 25), (30, 6_400, 5), (3, 9_600, 0), (6, 3_839, 0)]
)
def test_sync_leaves_out_the_last_window(frames: int, samples: int, windows: int) -> None:
    assert num_windows(frames, samples) == windows


def test_sync_without_the_face_is_an_error() -> None:
    with pytest.raises(ScoreError, match="needs 5 consecutive frames"):
        score(brightness(COUNT), places=np.full((COUNT, 4), np.nan))


def test_sync_trusts_three_seconds() -> None:
    assert not SyncScore(np.ones((69, 31), np.float32)).is_trusted
    assert SyncScore(np.ones((70, 31), np.float32)).is_trusted
    without_face = np.ones((90, 31), np.float32)
    without_face[69:] = np.nan
    assert not SyncScore(without_face).is_trusted


def test_sync_keeps_no_features_of_the_past() -> None:
    """Memory does not grow with the clip: the features of a batch and its surroundings are kept."""
    features = sync._SoundFeatures(torch.zeros(640 * 1000), 995, LevelNet())
    for start in range(0, 900, 20):
        features.around(range(start, start + 20))
        assert len(features._kept) <= 50
