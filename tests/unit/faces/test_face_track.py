from __future__ import annotations

import numpy as np
import pytest

from latentsync.errors import FaceError, UsageError
from latentsync.faces import alignment
from latentsync.faces.face_track import TrackSettings, build_face_track, runs
from latentsync.faces.identities import Identities, Identity, select, sort_identities
from tests.support.image_clip import black

COUNT = 40
FACE = np.array([[40.0, 40], [60, 40], [50, 55]])


def person(frames: list[int], number: int = 1, x: float = 0, side: float = 40, yaw: float = 0) -> Identity:
    """A person whose face moves one pixel to the right in every frame."""
    at = np.array(frames)
    points = FACE + np.array([x, 0]) + at[:, None, None] * np.array([1.0, 0])
    boxes = np.stack([x + at, at * 0, x + at + side, at * 0 + side], axis=1).astype(float)
    appearances = np.zeros((1, 12, 16, 3), np.float32)
    return Identity(number, at, points, boxes, np.ones(len(at)), np.full(len(at), yaw), at * 0.01, appearances)


def people(*persons: Identity, cuts: tuple[int, ...] = ()) -> Identities:
    return Identities(black(COUNT), persons, cuts)


def without(first: int, stop: int) -> list[int]:
    return [i for i in range(COUNT) if not first <= i < stop]


@pytest.mark.parametrize("smoothing", ["official", "zero-lag"])
def test_face_track_fills_short_gap(smoothing: str) -> None:
    one = person(without(10, 18))
    track = build_face_track(people(one), one, TrackSettings(smoothing=smoothing))
    assert track.present.all()
    np.testing.assert_allclose(track.points, person(list(range(COUNT))).points, atol=1e-9)


def test_face_track_leaves_long_gap() -> None:
    one = person(without(10, 19))
    track = build_face_track(people(one), one)
    assert np.flatnonzero(~track.present).tolist() == list(range(10, 19))


def test_face_track_fills_no_gap_at_ends_or_cuts() -> None:
    one = person([i for i in range(3, COUNT - 3) if not 18 <= i < 22])
    track = build_face_track(people(one, cuts=(20,)), one)
    assert np.flatnonzero(~track.present).tolist() == [0, 1, 2, 18, 19, 20, 21, COUNT - 3, COUNT - 2, COUNT - 1]
    assert track.shots.tolist() == [0] * 20 + [1] * 20


def test_face_track_head_turned_away_is_a_gap() -> None:
    one = person(list(range(COUNT)))
    one.yaws[10:20] = -61
    one.yaws[30:33] = 75
    track = build_face_track(people(one), one)
    assert np.flatnonzero(~track.present).tolist() == list(range(10, 20))
    assert build_face_track(people(one), one, TrackSettings(max_yaw_degrees=80)).present.all()
    with pytest.raises(
        FaceError, match=r"in 2 frames, but the head turns by more than 60 degrees in all these frames.*max_yaw"
    ):
        build_face_track(people(one), person([1, 2], yaw=70))


def test_face_track_official_smoothing_restarts_at_cut() -> None:
    points = np.random.default_rng(1).uniform(0, 3, (COUNT, 3, 2)) + FACE
    whole = alignment.affine_matrices(points, 256, cuts=(20,))
    np.testing.assert_array_equal(whole[:20], alignment.affine_matrices(points[:20], 256))
    np.testing.assert_array_equal(whole[20:], alignment.affine_matrices(points[20:], 256))
    assert not np.array_equal(whole[20:], alignment.affine_matrices(points, 256)[20:])


def test_face_track_zero_lag_stops_at_cut_and_gap() -> None:
    one = person(without(25, 40))
    one.points[12:] += 300
    track = build_face_track(people(one, cuts=(12,)), one)
    expected = person(without(25, 40)).points
    np.testing.assert_allclose(track.points[:12], expected[:12], atol=1e-9)


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("largest", [2, 1, 3]),
        ("leftmost", [1, 2, 3]),
        ("rightmost", [3, 2, 1]),
        ("most central", [2, 1, 3]),
        ("most frames", [1, 2, 3]),
    ],
)
def test_face_track_sorts_identities(order: str, numbers: list[int]) -> None:
    """A small face in all frames, a large one in half of them, a huge one in a few. The frame is 200 px wide."""
    everybody = people(
        person(list(range(40)), 1, x=-20, side=30),
        person(list(range(10, 30)), 2, x=50, side=60),
        person(list(range(10, 12)), 3, x=150, side=100),
    )
    ordered = sort_identities(everybody, order).members
    assert [identity.number for identity in ordered] == [1, 2, 3], "the numbers follow the order"
    for index, first_number in enumerate(numbers, start=1):
        expected = everybody.members[first_number - 1].frames
        assert np.array_equal(ordered[index - 1].frames, expected)
        chosen = select(everybody, order, index)
        assert chosen.number == index
        assert np.array_equal(chosen.frames, expected)


def test_face_track_names_choice_that_is_not_there() -> None:
    alone = people(person([1, 2, 3]))
    with pytest.raises(
        FaceError, match=r'"face_index" is 2, but clip has no person with this number\. Choose a number from 1 to 1'
    ):
        select(alone, "largest", 2)
    with pytest.raises(FaceError, match="has 40 frames, but LatentSync found no face in any of them"):
        select(people())
    with pytest.raises(UsageError, match="largest, leftmost"):
        select(alone, "prettiest")
    with pytest.raises(UsageError, match='"face_index" to 1 or higher'):
        select(alone, "largest", 0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"max_gap_frames": -1}, "max_gap"), ({"max_yaw_degrees": 0}, "max_yaw"), ({"smoothing": "none"}, "smoothing")],
)
def test_face_track_refuses_settings_out_of_range(settings: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        TrackSettings(**settings)


def test_face_track_runs_are_half_open() -> None:
    assert list(runs(np.array([True, False, True, True]))) == [range(1), range(2, 4)]
    assert list(runs(np.zeros(3, bool))) == []


def test_face_track_has_boxes_and_mouth_openings() -> None:
    one = person(without(10, 18))
    track = build_face_track(people(one), one)
    assert track.boxes is not None
    assert track.mouth_openings is not None
    np.testing.assert_allclose(track.boxes, person(list(range(COUNT))).boxes, atol=1e-9)
    assert np.isnan(track.mouth_openings[10:18]).all(), "openings are measured, not interpolated"
    np.testing.assert_allclose(track.mouth_openings[18:], 0.01 * np.arange(18, COUNT))
