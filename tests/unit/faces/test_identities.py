"""Real heads that stand, cross, leave, come back and are cut: who is who, in every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentsync.faces.detection import FaceDetector
from latentsync.faces.face_track import TrackSettings, build_face_track
from latentsync.faces.identities import select
from tests.support.heads import SIDE_PX, Actor, actor, always_on, blanked, found, head, staged
from tests.support.image_clip import Clip

COUNT = 60


def still(x: float, count: int = COUNT) -> np.ndarray:
    return np.full(count, float(x))


def test_identities_two_people_side_by_side(shared: Path, detector: FaceDetector) -> None:
    left, right = actor(shared, "demo1", still(0)), actor(shared, "demo2", still(2 * SIDE_PX))
    identities = found(staged(left, right), detector)
    assert [len(identity.frames) for identity in identities.members] == [COUNT, COUNT]
    assert identities.cuts == ()
    for order, one in (("leftmost", left), ("rightmost", right), ("largest", right)):
        assert always_on(select(identities, order), one), order
    assert always_on(select(identities, "largest", 2), left)


def test_crossing_people_keep_their_ids(shared: Path, detector: FaceDetector) -> None:
    way = np.linspace(0, 2 * SIDE_PX, COUNT)
    behind, front = actor(shared, "demo1", way), actor(shared, "demo2", 2 * SIDE_PX - way)
    identities = found(staged(behind, front), detector)
    assert len(identities.members) == 2
    hidden, seen = select(identities, "largest", 2), select(identities, "largest")
    assert always_on(seen, front)
    assert len(seen.frames) == COUNT
    assert always_on(hidden, behind)
    # The tiles touch from frame 15 to 45 of 60; before and after, nothing hides the face.
    apart = [frame for frame in range(COUNT) if abs(way[frame] - front.places[frame][0]) > SIDE_PX]
    assert set(apart) <= set(hidden.frames.tolist())


def test_returning_person_keeps_the_id(shared: Path, detector: FaceDetector) -> None:
    out = np.concatenate([np.linspace(0, -SIDE_PX, 20), np.full(20, -float(SIDE_PX)), still(SIDE_PX / 2, 20)])
    leaver, stayer = actor(shared, "demo1", out), actor(shared, "demo2", still(2 * SIDE_PX))
    identities = found(staged(leaver, stayer), detector)
    assert len(identities.members) == 2
    identity = select(identities, "leftmost")
    assert always_on(identity, leaver)
    assert set(range(5)) | set(range(40, COUNT)) <= set(identity.frames.tolist())
    assert not set(range(20, 40)) & set(identity.frames.tolist())
    assert always_on(select(identities, "most frames"), stayer)


def test_cut_ends_tracks_without_mixing_people(shared: Path, detector: FaceDetector) -> None:
    """From one person to the other, both in the middle: same place, another person."""
    frames = np.concatenate([head(shared, "demo1", 30), head(shared, "demo2", 30)])
    identities = found(Clip(frames), detector)
    assert identities.cuts == (30,)
    assert [identity.frames.tolist() for identity in identities.members] == [list(range(30)), list(range(30, 60))]
    first = build_face_track(identities, select(identities, "most frames"), TrackSettings(max_gap_frames=100))
    assert first.present.tolist() == [True] * 30 + [False] * 30


def test_cut_keeps_id_and_restarts_smoothing(shared: Path, detector: FaceDetector) -> None:
    wide = np.full((40, SIDE_PX, SIDE_PX, 3), 230, np.uint8)
    wide[:20] = head(shared, "demo1", 20)
    wide[20:, 60:180, 60:180] = head(shared, "demo1", 40)[20:, ::2, ::2]
    identities = found(Clip(wide), detector)
    assert identities.cuts == (20,)
    (identity,) = identities.members
    assert identity.frames.tolist() == list(range(40))
    whole, alone = build_face_track(identities, identity), identity.points[:20]
    assert np.abs(whole.points[:20] - alone).max() < SIDE_PX / 20, "nothing of the second shot leaks into the first"


@pytest.mark.parametrize("margin_px", [0, 40], ids=["flash", "face covered"])
@pytest.mark.parametrize(("missing", "filled"), [(3, True), (30, False)])
def test_missing_faces_are_filled_or_left(
    shared: Path, detector: FaceDetector, missing: int, filled: bool, margin_px: int
) -> None:
    seen = staged(actor(shared, "demo2", still(0)), width=SIDE_PX)
    clip = blanked(seen, 20, 20 + missing, margin_px)
    identities = found(clip, detector)
    (identity,) = identities.members
    assert identity.frames.tolist() == [i for i in range(COUNT) if not 20 <= i < 20 + missing]
    track = build_face_track(identities, identity)
    assert track.present[20 : 20 + missing].all() == track.present[20 : 20 + missing].any() == filled
    if filled:
        whole = found(seen, detector)
        expected = build_face_track(whole, whole.members[0]).points
        # A twentieth of the face: a head moves little in a tenth of a second, and MediaPipe itself jitters by a few px.
        assert np.abs(track.points - expected).max() < SIDE_PX / 20


def test_largest_ignores_person_passing_by(shared: Path, detector: FaceDetector) -> None:
    speaker = actor(shared, "demo1", still(0))
    x = np.where(np.arange(COUNT) < 15, 2 * SIDE_PX, -9 * SIDE_PX).astype(float)
    identities = found(staged(speaker, Actor(head(shared, "demo2", COUNT), actor(shared, "demo2", x).places)), detector)
    assert len(identities.members) == 2
    assert always_on(select(identities), speaker)
