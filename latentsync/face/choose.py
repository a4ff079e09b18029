"""Whose lips are made to speak: one choice for the clip, never one per frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ..errors import FaceError, UsageError
from .detect import FaceDetector
from .look import apart, look
from .people import People, Person

Order = Literal["largest", "leftmost", "rightmost", "most central", "most frames"]
ORDERS: tuple[Order, ...] = get_args(Order)


def choose(people: People, order: Order = "largest", index: int = 0, reference: np.ndarray | None = None) -> Person:
    """One person of the clip.

    Args:
        order: by what people are sorted; positions are means over the clip, and the largest is whose face fills most
            of the picture over the whole clip, so that nobody wins by passing close to the camera.
        index: 0 takes the first of that order, 1 the second.
        reference: a look, as `reference_look` makes it: people are sorted by likeness to it instead.

    Raises:
        FaceError: nobody is there, or not so many people.
        UsageError: no such order, or a negative index.
    """
    source, persons = people.source, people.persons
    if order not in ORDERS or index < 0:
        raise UsageError(f"a face is chosen by one of {', '.join(ORDERS)} and an index from 0, not {order!r}, {index}")
    if not persons:
        raise no_face(people)
    if index >= len(persons):
        raise FaceError(
            f"{source.name}: there is no face {index} to choose; {_counted(len(persons))} found, counted from 0. "
            "Look at the numbered crops (Face Prep and the command `faces` show them) and choose a lower face_index."
        )
    if reference is not None:
        return sorted(persons, key=lambda person: _unlikeness(person, reference))[index]
    return ordered(people, order)[index]


def ordered(people: People, order: Order) -> Sequence[Person]:
    """The people of a clip, sorted."""
    middle = np.array([people.source.width, people.source.height]) / 2
    keys = {
        "largest": lambda person: -float((person.sides_px**2).sum()),
        "leftmost": lambda person: float(person.centre_px[0]),
        "rightmost": lambda person: -float(person.centre_px[0]),
        "most central": lambda person: float(np.linalg.norm(person.centre_px - middle)),
        "most frames": lambda person: -len(person.frames),
    }
    return sorted(people.persons, key=keys[order])


def reference_look(picture: np.ndarray, detector: FaceDetector) -> np.ndarray:
    """The look of the largest face in a picture (H, W, 3), uint8 or float32 in [0, 1].

    Raises:
        FaceError: no face is in it.
    """
    faces = detector.detect(picture)
    if not faces:
        raise FaceError(
            f"reference_face: no face found in the picture of {picture.shape[1]} x {picture.shape[0]} pixels. "
            "Use a picture where the person is seen from the front."
        )
    return look(picture, faces[0].points)


def _unlikeness(person: Person, reference: np.ndarray) -> float:
    """How far a person is from a look, made as bright as theirs: pictures of one person are lit differently."""
    brightness = float(person.looks.mean()) / max(float(reference.mean()), 1.0)
    return apart(person.looks, reference[None] * brightness)


def no_face(people: People) -> FaceError:
    """What to say of a clip without a face."""
    return FaceError(
        f"{people.source.name}: no face found in any of its {people.source.frame_count} frames. "
        "Use a clip where a face of at least 40 pixels is seen from the front or nearly so, lower min_confidence, "
        "or wire landmarks of your own."
    )


def _counted(count: int) -> str:
    return "1 face was" if count == 1 else f"{count} faces were"
