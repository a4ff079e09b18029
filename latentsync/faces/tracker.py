"""Faces over time: a scan over the frames that links each face to where it was a moment ago.

A link needs the place and the look to agree. Where they do not (two people cross, somebody leaves) the track ends;
`people` puts the tracks of one person together afterwards.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..prefetch import prefetch
from .appearance import appearance, appearance_distance
from .detection import Box, BoxDetection, FaceDetection, FaceDetector, box_area
from .shots import CUT_LEVELS, difference, thumbnail

if TYPE_CHECKING:
    from ..video.frame_source import FrameSource


THOROUGH_FRAMES = 25  # small newcomers are looked for every so many frames: tiles take as long as ten meshes


PATIENCE_FRAMES = 6  # without its face, after which a track is no longer looked for


REACH = 0.6  # of a face's side: how far it may have moved since it was seen


GROWTH = 1.6  # by how much its side may have changed


SAME_LOOK = 0.55  # distance of looks below which a face stays on its track


LONE_LOOK = 0.8  # the same, where no other face or track is near: the light may change, a hand pass


LOOK_CARRY = 0.8  # of the track's look so far, when a new one is mixed in


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face in one frame, on its track.

    track: number of the track, from 0 in order of appearance.
    points: float64 (3, 2), pixels: brows and nose.
    box: around the mesh, pixels.
    score: how sure the detector is of it, 0 to 1.
    yaw_degrees: -90 to 90, positive towards the right of the picture.
    look: float32 (12, 16, 3).
    """

    track: int
    points: np.ndarray
    box: Box
    score: float
    yaw_degrees: float
    look: np.ndarray


class FrameResult(NamedTuple):
    """One frame: its thumbnail and the faces in it."""

    thumbnail: np.ndarray
    sightings: tuple[TrackedFace, ...]


@dataclass(frozen=True, eq=False)
class _Track:
    """A track that may go on: where and how its face was last seen, and for how many frames it has been missed."""

    number: int
    box: Box
    look: np.ndarray
    missed: int = 0


class _Glanced(NamedTuple):
    frame: np.ndarray
    thumbnail: np.ndarray
    candidates: tuple[BoxDetection, ...]


def track_faces(source: FrameSource, finder: FaceDetector) -> Generator[FrameResult, None, None]:
    """The faces of each source frame in turn, linked over time.

    Another thread decodes the next frames and glances at them meanwhile: close the generator before the finder.
    """
    with closing(prefetch(_glances(source, finder))) as glances:
        yield from _followed(glances, finder)


def _followed(glances: Iterator[_Glanced], finder: FaceDetector) -> Iterator[FrameResult]:
    active: list[_Track] = []
    count = 0
    last: np.ndarray | None = None
    for index, (frame, small, glanced) in enumerate(glances):
        if last is None or difference(small, last) >= CUT_LEVELS:
            active = []
        last = small
        thorough = not active or index % THOROUGH_FRAMES == 0
        faces = finder.find(index, frame, glanced, [track.box for track in active], thorough=thorough)
        sightings = _linked(frame, faces, active, count)
        count = max([count, *(sighting.track + 1 for sighting in sightings)])
        active = _continued(active, sightings)
        yield FrameResult(small, sightings)


def _glances(source: FrameSource, finder: FaceDetector) -> Iterator[_Glanced]:
    for frame in source.read(range(source.frame_count)):
        yield _Glanced(frame, thumbnail(frame), finder.detect_boxes(frame))


def _linked(
    frame: np.ndarray, faces: Sequence[FaceDetection], active: Sequence[_Track], next_number: int
) -> tuple[TrackedFace, ...]:
    """Each face on the track that it continues, or on a new one."""
    looks = [appearance(frame, face.points) for face in faces]
    near = [(i, track) for i, face in enumerate(faces) for track in active if _within_reach(track.box, face.box)]
    pairs = sorted(
        (cost, i, track.number)
        for i, track in near
        if (cost := appearance_distance(track.look, looks[i])) < (LONE_LOOK if _alone(i, track, near) else SAME_LOOK)
    )
    numbers: dict[int, int] = {}
    for _, i, number in pairs:
        if i not in numbers and number not in numbers.values():
            numbers[i] = number
    fresh = iter(range(next_number, next_number + len(faces)))
    return tuple(
        TrackedFace(
            numbers[i] if i in numbers else next(fresh), face.points, face.box, face.score, face.yaw_degrees, seen
        )
        for i, (face, seen) in enumerate(zip(faces, looks, strict=True))
    )


def _continued(active: Sequence[_Track], sightings: Sequence[TrackedFace]) -> list[_Track]:
    """The tracks to look for in the next frame."""
    before = {track.number: track for track in active}
    seen = [_Track(s.track, s.box, _update_appearance(before.get(s.track), s.look)) for s in sightings]
    missed = [
        _Track(track.number, track.box, track.look, track.missed + 1)
        for track in active
        if track.missed < PATIENCE_FRAMES and track.number not in {s.track for s in sightings}
    ]
    return seen + missed


def _update_appearance(track: _Track | None, fresh: np.ndarray) -> np.ndarray:
    return fresh if track is None else LOOK_CARRY * track.look + (1 - LOOK_CARRY) * fresh


def _alone(i: int, track: _Track, near: Sequence[tuple[int, _Track]]) -> bool:
    """Whether a face has but one track in reach, and the track but this face."""
    return sum(i == face or track is other for face, other in near) == 1


def _within_reach(before: Box, now: Box) -> bool:
    sides = box_area(before) ** 0.5, box_area(now) ** 0.5
    moved = np.hypot(before[0] + before[2] - now[0] - now[2], before[1] + before[3] - now[1] - now[3]) / 2
    return bool(moved <= REACH * max(sides) and max(sides) <= GROWTH * min(sides))
