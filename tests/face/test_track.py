from __future__ import annotations

import numpy as np
import pytest

from latentsync.errors import FaceError
from latentsync.face.detect import Face
from latentsync.face.track import PATIENCE_FRAMES, follow_largest, overlap
from tests.face.clip import black, drawn_face


def test_the_largest_face_is_followed_though_another_outgrows_it() -> None:
    speaker = [drawn_face(10 + i, 10, 40) for i in range(6)]
    bystander = [drawn_face(120, 10, side) for side in (20, 30, 60, 60, 30, 20)]
    track = follow_largest(black(6), list(zip(bystander, speaker, strict=True)))
    np.testing.assert_array_equal(track.points, [face.points for face in speaker])


def test_frames_without_the_face_stay_without() -> None:
    face = drawn_face(10, 10, 40)
    bystander = drawn_face(120, 10, 60)
    track = follow_largest(black(4), [(), (face,), (bystander,), (bystander, face)])
    assert track.present.tolist() == [False, True, False, True]


def test_somebody_gone_for_long_is_given_up_for_the_largest() -> None:
    gone: list[tuple[Face, ...]] = [(drawn_face(10, 10, 40),)]
    there = [(drawn_face(120, 10, 30),)] * (PATIENCE_FRAMES + 3)
    track = follow_largest(black(1 + len(there)), gone + there)
    assert track.present.tolist() == [True] + [False] * PATIENCE_FRAMES + [True] * 3


def test_a_clip_without_a_face_is_refused() -> None:
    with pytest.raises(FaceError, match="no face found in any of its 2 frames"):
        follow_largest(black(2), [(), ()])
    with pytest.raises(FaceError, match="1 frames were given for 2"):
        follow_largest(black(2), [()])


def test_overlap_is_intersection_over_union() -> None:
    face = drawn_face(0, 0, 20)
    assert overlap(face, face) == pytest.approx(1)
    assert overlap(face, drawn_face(10, 0, 20)) == pytest.approx(1 / 3)
    assert overlap(face, drawn_face(40, 0, 20)) == 0
