"""Cluster face tracks into identities, and select one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ..errors import FaceError, UsageError
from .appearance import appearance, set_distance
from .mediapipe_detector import MediaPipeDetector
from .shots import detect_cuts

if TYPE_CHECKING:
    from ..video.frame_source import FrameSource
    from .tracker import FrameResult, TrackedFace


SAME_PERSON = 0.5  # `apart` of one person's tracks was up to 0.41 on real clips, of two people's from 0.61


KEPT_LOOKS = 12  # of a person, for comparing; spread over time


LOOK_EVERY_FRAMES = 8  # one look of a track in so many frames is considered


FLEETING_FRAMES = 12  # seen in fewer frames, and fewer than a tenth of the clip's, a face is taken for a mistake


@dataclass(frozen=True, eq=False)
class Identity:
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
    def center_px(self) -> np.ndarray:
        """float64 (2,): where the face is on average."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]).mean(axis=0) / 2

    def __repr__(self) -> str:
        x, y = self.center_px
        return (
            f"Person {self.number} ({len(self.frames)} frames, {np.median(self.sides_px):.0f} px at {x:.0f}, {y:.0f})"
        )


@dataclass(frozen=True, eq=False)
class Identities:
    """Everybody in a clip; it may be nobody.

    source: the frames that were searched.
    persons: by number.
    cuts: frames that begin a new shot, the first not counted.
    """

    source: FrameSource
    persons: tuple[Identity, ...]
    cuts: tuple[int, ...]

    def __repr__(self) -> str:
        return f"People({len(self.persons)} in {self.source.name}, {len(self.cuts)} cuts)"


@dataclass(frozen=True, eq=False)
class _Cluster:
    """Some sightings of one person: tracks, joined or not. `rows` are (frame, points, box, score, yaw) flattened."""

    rows: np.ndarray
    looks: np.ndarray

    @property
    def frames(self) -> np.ndarray:
        return self.rows[:, 0].astype(np.int64)


def cluster_tracks(source: FrameSource, scanned: Iterable[FrameResult]) -> Identities:
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
    tracks = [_Cluster(np.stack(rows[number]), np.stack(looks[number])) for number in rows]
    joined = [seen for seen in _cluster(tracks) if _lasting(seen, source.frame_count)]
    joined.sort(key=lambda seen: (seen.rows[0, 0], seen.rows[0, 7]))
    persons = tuple(_identity(number, seen) for number, seen in enumerate(joined, start=1))
    return Identities(source, persons, detect_cuts(np.stack(thumbnails)))


def _cluster(tracks: Sequence[_Cluster]) -> list[_Cluster]:
    """Tracks of one person joined, the longest first: it has shown the most of itself."""
    people: list[_Cluster] = []
    for track in sorted(tracks, key=lambda seen: -len(seen.rows)):
        distances = [
            set_distance(person.looks, track.looks) if not _together(person, track) else np.inf for person in people
        ]
        nearest = int(np.argmin(distances)) if distances else -1
        if nearest >= 0 and distances[nearest] < SAME_PERSON:
            people[nearest] = _merged(people[nearest], track)
        else:
            people.append(track)
    return people


def _together(a: _Cluster, b: _Cluster) -> bool:
    """Whether one frame shows both."""
    return bool(np.isin(b.frames, a.frames).any())


def _merged(a: _Cluster, b: _Cluster) -> _Cluster:
    rows = np.concatenate([a.rows, b.rows])
    looks = np.stack(_spread([*a.looks, *b.looks]))
    return _Cluster(rows[np.argsort(rows[:, 0], kind="stable")], looks)


def _lasting(seen: _Cluster, frame_count: int) -> bool:
    return len(seen.rows) >= min(FLEETING_FRAMES, max(frame_count / 10, 1))


def _spread(looks: list[np.ndarray]) -> list[np.ndarray]:
    """At most KEPT_LOOKS of them: of the two neighbours that are most alike, the later one goes."""
    if len(looks) <= KEPT_LOOKS:
        return looks
    steps = [float(np.abs(a - b).mean()) for a, b in pairwise(looks)]
    dropped = int(np.argmin(steps)) + 1
    return looks[:dropped] + looks[dropped + 1 :]


def _row(index: int, sighting: TrackedFace) -> np.ndarray:
    return np.array([index, *sighting.points.ravel(), *sighting.box, sighting.score, sighting.yaw_degrees])


def _identity(number: int, seen: _Cluster) -> Identity:
    rows = seen.rows
    points, boxes = rows[:, 1:7].reshape(-1, 3, 2), rows[:, 7:11]
    return Identity(number, seen.frames, points, boxes, rows[:, 11], rows[:, 12], seen.looks)


SelectBy = Literal["largest", "leftmost", "rightmost", "most central", "most frames"]


SELECT_BY: tuple[SelectBy, ...] = get_args(SelectBy)


def select(
    people: Identities, order: SelectBy = "largest", index: int = 0, reference: np.ndarray | None = None
) -> Identity:
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
    if order not in SELECT_BY or index < 0:
        raise UsageError(
            f"a face is chosen by one of {', '.join(SELECT_BY)} and an index from 0, not {order!r}, {index}"
        )
    if not persons:
        raise no_face(people)
    if index >= len(persons):
        raise FaceError(
            f"{source.name}: there is no face {index} to choose; {_counted(len(persons))} found, counted from 0. "
            "Look at the numbered crops (Face Prep and the command `faces` show them) and choose a lower face_index."
        )
    if reference is not None:
        return sorted(persons, key=lambda person: _distance_to_reference(person, reference))[index]
    return sort_identities(people, order)[index]


def sort_identities(people: Identities, order: SelectBy) -> Sequence[Identity]:
    """The people of a clip, sorted."""
    middle = np.array([people.source.width, people.source.height]) / 2
    keys = {
        "largest": lambda person: -float((person.sides_px**2).sum()),
        "leftmost": lambda person: float(person.center_px[0]),
        "rightmost": lambda person: -float(person.center_px[0]),
        "most central": lambda person: float(np.linalg.norm(person.center_px - middle)),
        "most frames": lambda person: -len(person.frames),
    }
    return sorted(people.persons, key=keys[order])


def reference_appearance(picture: np.ndarray, detector: MediaPipeDetector) -> np.ndarray:
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
    return appearance(picture, faces[0].points)


def _distance_to_reference(person: Identity, reference: np.ndarray) -> float:
    """How far a person is from a look, made as bright as theirs: pictures of one person are lit differently."""
    brightness = float(person.looks.mean()) / max(float(reference.mean()), 1.0)
    return set_distance(person.looks, reference[None] * brightness)


def no_face(people: Identities) -> FaceError:
    """What to say of a clip without a face."""
    return FaceError(
        f"{people.source.name}: no face found in any of its {people.source.frame_count} frames. "
        "Use a clip where a face of at least 40 pixels is seen from the front or nearly so, lower min_confidence, "
        "or wire landmarks of your own."
    )


def _counted(count: int) -> str:
    return "1 face was" if count == 1 else f"{count} faces were"
