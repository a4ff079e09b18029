"""Select a person by a point in a frame."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from latentsync.errors import FaceError, UsageError
from latentsync.faces.identities import FaceAt, Identities, Identity, identity_at, select
from latentsync.stages import select_face
from tests.support.image_clip import Clip

COUNT, WIDTH, HEIGHT = 20, 200, 100


def person(number: int, frames: range, lefts: np.ndarray, side: float = 30) -> Identity:
    boxes = np.stack([lefts, np.full(len(lefts), 20.0), lefts + side, np.full(len(lefts), 20 + side)], axis=1)
    points = boxes[:, None, :2] + np.array([[8, 8], [22, 8], [15, 20]])
    ones = np.ones(len(lefts))
    return Identity(
        number, np.array(frames), points, boxes, ones, 0 * ones, 0 * ones, np.zeros((1, 12, 16, 3), np.float32)
    )


def crossing(pixel_aspect: Fraction = Fraction(1)) -> Identities:
    """One walks to the right, the other, who is larger and always first by size, to the left. They pass in frame 10."""
    clip = Clip(np.zeros((COUNT, HEIGHT, WIDTH, 3), np.uint8), pixel_aspect=pixel_aspect)
    way = np.linspace(0, 150, COUNT)
    return Identities(clip, (person(1, range(COUNT), way), person(2, range(COUNT), 150 - way, 40)), ())


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("at", "side"), [((10, 30, 0), 30), ((170, 30, 0), 40), ((165, 40, 19), 30), ((5, 40, 19), 40)]
)
def test_face_at_selects_the_person_there(at: tuple[int, int, int], side: int, swapped: bool) -> None:
    people = crossing()
    if swapped:
        people = replace(people, members=people.members[::-1])
    for order in ("largest", "leftmost", "most frames"):
        assert select(people, order, at=FaceAt(*at)).sides_px[0] == side
        assert select(people, order, 2, at=FaceAt(*at)).sides_px[0] == 70 - side, "the other comes second"


def test_face_at_takes_the_nearest_center() -> None:
    people = crossing()
    small, large = people.members
    frame = 9  # the boxes overlap
    for wanted in (small, large):
        x, y = (wanted.boxes[frame, :2] + wanted.boxes[frame, 2:]) / 2
        assert identity_at(people, FaceAt(round(x), round(y), frame)) is wanted


def test_face_at_counts_stored_pixels() -> None:
    """A wide pixel: boxes are in square pixels, twice as many as the frame has."""
    people = crossing(Fraction(2))
    assert identity_at(people, FaceAt(10, 30, 0)) is people.members[0]
    assert identity_at(people, FaceAt(85, 30, 0)) is people.members[1]


def test_face_at_needs_a_face_at_the_point() -> None:
    with pytest.raises(FaceError, match=r'"face_at" is 100, 90 in frame 3, but .* shows no face at that point'):
        select(crossing(), at=FaceAt(100, 90, 3))


@pytest.mark.parametrize("at", [FaceAt(200, 0), FaceAt(0, 100), FaceAt(0, 0, 20)])
def test_face_at_must_be_in_the_video(at: FaceAt) -> None:
    with pytest.raises(UsageError, match=r"has 200 x 100 pixels and 20 frames\. Choose a point"):
        select(crossing(), at=at)


def test_face_at_is_read_from_text() -> None:
    assert FaceAt.parse("") is None
    assert FaceAt.parse(" 640, 360 ") == (640, 360, 0)
    assert FaceAt.parse("640,360,25") == (640, 360, 25)
    for text in ("640", "a, b", "1, 2, 3, 4", "-1, 2", "1.5, 2"):
        with pytest.raises(UsageError, match='"face_at" cannot be'):
            FaceAt.parse(text)


def test_face_at_is_in_the_params() -> None:
    selection = select_face(crossing(), at=FaceAt(10, 30, 0))
    assert selection.track.params["face_at"] == [10, 30, 0]
    assert "face_at" not in select_face(crossing()).track.params
    assert [round(person.sides_px[0]) for person in selection.identities.members] == [30, 40]
