"""Tracks of one person put together: who is in the clip, and where.

Tracks end where people cross, leave or are lost; a person is all tracks that look alike and are never in one frame
together. Place is no proof of it: whoever comes back may come back elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from .look import apart
from .shots import cuts

if TYPE_CHECKING:
    from ..media import FrameSource
    from .track import Scanned, Sighting

SAME_PERSON = 0.5  # `apart` of one person's tracks was up to 0.41 on real clips, of two people's from 0.61
KEPT_LOOKS = 12  # of a person, for comparing; spread over time
LOOK_EVERY_FRAMES = 8  # one look of a track in so many frames is considered
FLEETING_FRAMES = 12  # seen in fewer frames, and fewer than a tenth of the clip's, a face is taken for a mistake


@dataclass(frozen=True, eq=False)
class Person:
    """One person of a clip.

    number: from 1, by first appearance.
    frames: int64 (n,), rising: the source frames that show the face.
    points: float64 (n, 3, 2), pixels: brows and nose in each of them.
    boxes: float64 (n, 4), pixels: x0, y0, x1, y1 around the mesh.
    scores: float64 (n,), 0 to 1: how sure the detector is.
    yaws: float64 (n,), degrees, positive towards the right of the picture.
    looks: float32 (k, 12, 16, 3), from k of the frames.
    """

    number: int
    frames: np.ndarray
    points: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    yaws: np.ndarray
    looks: np.ndarray

    @property
    def sides_px(self) -> np.ndarray:
        """float64 (n,): side of a square as large as the box."""
        return np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))

    @property
    def centre_px(self) -> np.ndarray:
        """float64 (2,): where the face is on average."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]).mean(axis=0) / 2

    def __repr__(self) -> str:
        x, y = self.centre_px
        return (
            f"Person {self.number} ({len(self.frames)} frames, {np.median(self.sides_px):.0f} px at {x:.0f}, {y:.0f})"
        )


@dataclass(frozen=True, eq=False)
class People:
    """Everybody in a clip; it may be nobody.

    source: the frames that were searched.
    persons: by number.
    cuts: frames that begin a new shot, the first not counted.
    """

    source: FrameSource
    persons: tuple[Person, ...]
    cuts: tuple[int, ...]

    def __repr__(self) -> str:
        return f"People({len(self.persons)} in {self.source.name}, {len(self.cuts)} cuts)"


@dataclass(frozen=True, eq=False)
class _Seen:
    """Some sightings of one person: tracks, joined or not. `rows` are (frame, points, box, score, yaw) flattened."""

    rows: np.ndarray
    looks: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        return self.rows[:, 0].astype(np.int64)


def gather(source: FrameSource, scanned: Iterable[Scanned]) -> People:
    """Run the scan to its end and say who is there.

    Args:
        source: the frames that were scanned.
        scanned: of every one of them.

    Raises:
        FaceError: it is not of as many frames.
    """
    thumbnails: list[np.ndarray] = []
    rows: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    looks: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for index, frame in enumerate(scanned):
        thumbnails.append(frame.thumbnail.astype(np.uint8))
        for sighting in frame.sightings:
            if len(rows[sighting.track]) % LOOK_EVERY_FRAMES == 0:
                looks[sighting.track] = _spread([*looks[sighting.track], sighting.look])
            rows[sighting.track].append(_row(index, sighting))
    if len(thumbnails) != source.frame_count:
        raise FaceError(f"{source.name}: faces of {len(thumbnails)} frames were given for {source.frame_count}")
    tracks = [_Seen(np.stack(rows[number]), np.stack(looks[number])) for number in rows]
    joined = [seen for seen in _joined(tracks) if _lasting(seen, source.frame_count)]
    joined.sort(key=lambda seen: (seen.rows[0, 0], seen.rows[0, 7]))
    persons = tuple(_person(number, seen) for number, seen in enumerate(joined, start=1))
    return People(source, persons, cuts(np.stack(thumbnails)))


def _joined(tracks: Sequence[_Seen]) -> list[_Seen]:
    """Tracks of one person joined, the longest first: it has shown the most of itself."""
    people: list[_Seen] = []
    for track in sorted(tracks, key=lambda seen: -len(seen.rows)):
        distances = [apart(person.looks, track.looks) if not _together(person, track) else np.inf for person in people]
        nearest = int(np.argmin(distances)) if distances else -1
        if nearest >= 0 and distances[nearest] < SAME_PERSON:
            people[nearest] = _merged(people[nearest], track)
        else:
            people.append(track)
    return people


def _together(a: _Seen, b: _Seen) -> bool:
    """Whether one frame shows both."""
    return bool(np.isin(b.frames, a.frames).any())


def _merged(a: _Seen, b: _Seen) -> _Seen:
    rows = np.concatenate([a.rows, b.rows])
    looks = np.stack(_spread([*a.looks, *b.looks]))
    return _Seen(rows[np.argsort(rows[:, 0], kind="stable")], looks)


def _lasting(seen: _Seen, frame_count: int) -> bool:
    return len(seen.rows) >= min(FLEETING_FRAMES, max(frame_count / 10, 1))


def _spread(looks: list[np.ndarray]) -> list[np.ndarray]:
    """At most KEPT_LOOKS of them: of the two neighbours that are most alike, the later one goes."""
    if len(looks) <= KEPT_LOOKS:
        return looks
    steps = [float(np.abs(a - b).mean()) for a, b in pairwise(looks)]
    dropped = int(np.argmin(steps)) + 1
    return looks[:dropped] + looks[dropped + 1 :]


def _row(index: int, sighting: Sighting) -> np.ndarray:
    return np.array([index, *sighting.points.ravel(), *sighting.box, sighting.score, sighting.yaw_degrees])


def _person(number: int, seen: _Seen) -> Person:
    rows = seen.rows
    points, boxes = rows[:, 1:7].reshape(-1, 3, 2), rows[:, 7:11]
    return Person(number, seen.frames, points, boxes, rows[:, 11], rows[:, 12], seen.looks)
