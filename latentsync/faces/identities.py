"""Cluster face tracks into identities, and select an identity."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from ..errors import FaceError, UsageError
from .appearance import appearance, set_distance
from .detection import FaceDetector, detect_in_image
from .lip_correlation import MIN_OPENINGS, lag_correlations
from .shots import THUMBNAIL_PX, detect_cuts
from .warp import display_width

if TYPE_CHECKING:
    from ..video.frame_source import FrameSource
    from .tracker import FrameResult

MAX_SET_DISTANCE = 0.5  # between tracks of one person. On real clips up to 0.41, and from 0.61 for two people
MAX_APPEARANCES = 12  # appearances that an identity keeps, spread over time
APPEARANCE_EVERY_FRAMES = 8  # frames between two appearances of a track
ROW_NUMBERS = 14  # of a face in one frame, see `_Cluster`
MAX_LAG_FRAMES = 3  # between the sound of a video and its mouths
MIN_FRAMES = 12  # of an identity, or a tenth of a short clip. Shorter ones are false detections

SelectBy = Literal["largest", "leftmost", "rightmost", "most central", "most frames", "speaking"]
SELECT_BY: tuple[SelectBy, ...] = get_args(SelectBy)


class FaceAt(NamedTuple):
    """A point on a face: x and y in pixels of the original frame with the number `frame`. All three start at 0."""

    x: int
    y: int
    frame: int = 0

    @classmethod
    def parse(cls, text: str) -> FaceAt | None:
        """A point from "x, y" or "x, y, frame". None if the text is empty.

        Raises:
            UsageError: the text is not valid.
        """
        if not text.strip():
            return None
        match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*(?:,\s*(\d+)\s*)?", text)
        if match is None:
            raise UsageError(
                f'"face_at" cannot be {text}. Enter "x, y" or "x, y, frame" as whole numbers, such as 640, 360, 0.'
            )
        return cls(*(int(number) for number in match.groups("0")))


@dataclass(frozen=True, eq=False)
class Identity:
    """One person of a clip.

    number: position in `Identities.members`, from 1.
    frames: int64 (n,), increasing: the source frames that show the face.
    points: float64 (n, 3, 2), square pixels: left eyebrow, right eyebrow and nose in each frame.
    boxes: float64 (n, 4), square pixels: x0, y0, x1, y1.
    scores: float64 (n,), 0 to 1: confidence of the detector.
    yaws: float64 (n,), degrees, positive when the head turns to the right side of the image.
    mouth_openings: float64 (n,), see `FaceDetection`. NaN where unknown.
    appearances: float32 (k, 12, 16, 3), from k of the n frames.
    """

    number: int
    frames: np.ndarray
    points: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    yaws: np.ndarray
    mouth_openings: np.ndarray
    appearances: np.ndarray

    @property
    def sides_px(self) -> np.ndarray:
        """float64 (n,): side of a square with the same area as the box."""
        return np.sqrt(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))

    @property
    def center_px(self) -> np.ndarray:
        """float64 (2,): mean center of the boxes."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]).mean(axis=0) / 2

    def __repr__(self) -> str:
        x, y = self.center_px
        side = np.median(self.sides_px)
        return f"Identity({self.number}, {len(self.frames)} frames, {side:.0f} px at {x:.0f}, {y:.0f})"


@dataclass(frozen=True, eq=False)
class Identities:
    """All identities of a clip. A clip may have no identities.

    source: the searched frames.
    members: identities in the order of their numbers: by first appearance, or in the order of `sort_identities`.
    cuts: the first frame of every shot, except the first shot.
    params: settings of the detection, for the run record.
    """

    source: FrameSource
    members: tuple[Identity, ...]
    cuts: tuple[int, ...]
    params: Mapping[str, object] = field(default_factory=dict[str, object])

    def __repr__(self) -> str:
        return f"Identities({len(self.members)} in {self.source.name}, {len(self.cuts)} cuts)"


class _Cluster(NamedTuple):
    """Detections of one identity, from one or more merged tracks.

    rows: float64 (n, 14), by frame: frame, points (6), box (4), score, yaw, mouth opening.
    appearances: float32 (k, 12, 16, 3).
    """

    rows: np.ndarray
    appearances: np.ndarray


def cluster_tracks(source: FrameSource, results: Iterable[FrameResult]) -> Identities:
    """Merge the tracks of each person.

    Args:
        source: the frames that the tracker processed.
        results: the tracker's result of every source frame.

    Raises:
        FaceError: `results` and `source` differ in length.
    """
    thumbnails = bytearray()  # an array for each of the frames would take twice the RAM, as for `numbers`
    numbers: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
    appearances: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for index, result in enumerate(results):
        thumbnails += result.thumbnail.astype(np.uint8).tobytes()
        for track, face, patch in result.faces:
            if len(numbers[track]) // ROW_NUMBERS % APPEARANCE_EVERY_FRAMES == 0:
                appearances[track] = _limit_appearances([*appearances[track], patch])
            mouth_opening = np.nan if face.mouth_opening is None else face.mouth_opening
            numbers[track].extend([index, *face.points.ravel(), *face.box, face.score, face.yaw, mouth_opening])
    small = np.frombuffer(thumbnails, np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX, 3)
    if len(small) != source.frame_count:
        raise FaceError(
            f"Internal error: {source.name} has {source.frame_count} frames, but {len(small)} were tracked. "
            "Please report this."
        )
    rows = {track: np.frombuffer(values).reshape(-1, ROW_NUMBERS) for track, values in numbers.items()}
    clusters = _cluster([_Cluster(rows[track], np.stack(appearances[track])) for track in rows])
    min_frames = min(MIN_FRAMES, max(source.frame_count / 10, 1))
    clusters = [cluster for cluster in clusters if len(cluster.rows) >= min_frames]
    clusters.sort(key=lambda cluster: (cluster.rows[0, 0], cluster.rows[0, 7]))  # by first frame, then from the left
    members = tuple(
        Identity(
            number,
            frames=cluster.rows[:, 0].astype(np.int64),
            points=cluster.rows[:, 1:7].reshape(-1, 3, 2),
            boxes=cluster.rows[:, 7:11],
            scores=cluster.rows[:, 11],
            yaws=cluster.rows[:, 12],
            mouth_openings=cluster.rows[:, 13],
            appearances=cluster.appearances,
        )
        for number, cluster in enumerate(clusters, start=1)
    )
    return Identities(source, members, detect_cuts(small))


def _cluster(tracks: Sequence[_Cluster]) -> list[_Cluster]:
    """Greedy clustering, longest track first: a track joins the nearest cluster that shares no frame with it."""
    clusters: list[_Cluster] = []
    for track in sorted(tracks, key=lambda track: -len(track.rows)):
        distances = [
            np.inf
            if np.isin(track.rows[:, 0], cluster.rows[:, 0]).any()
            else set_distance(cluster.appearances, track.appearances)
            for cluster in clusters
        ]
        nearest = int(np.argmin(distances)) if distances else 0
        if not distances or distances[nearest] >= MAX_SET_DISTANCE:
            clusters.append(track)
            continue
        rows = np.concatenate([clusters[nearest].rows, track.rows])
        appearances = np.stack(_limit_appearances([*clusters[nearest].appearances, *track.appearances]))
        clusters[nearest] = _Cluster(rows[np.argsort(rows[:, 0], kind="stable")], appearances)
    return clusters


def _limit_appearances(appearances: list[np.ndarray]) -> list[np.ndarray]:
    """If there are more than MAX_APPEARANCES appearances, drop the later of the two most similar neighbors."""
    if len(appearances) <= MAX_APPEARANCES:
        return appearances
    steps = [float(np.abs(a - b).mean()) for a, b in pairwise(appearances)]
    dropped = int(np.argmin(steps)) + 1
    return appearances[:dropped] + appearances[dropped + 1 :]


def select(
    identities: Identities,
    by: SelectBy = "largest",
    index: int = 1,
    reference: np.ndarray | None = None,
    at: FaceAt | None = None,
    levels: np.ndarray | None = None,
) -> Identity:
    """Select one identity of a clip.

    Args:
        by, reference, at, levels: the order of the identities, see `sort_identities`.
        index: number of the identity in that order, from 1.

    Raises:
        FaceError: the clip has fewer than `index` identities, or the order cannot be computed.
        UsageError: the order is unknown, the index is below 1, or the order "speaking" has no levels.
    """
    source, count = identities.source, len(identities.members)
    if by not in SELECT_BY or index < 1:
        raise UsageError(
            f'"face" is {by} and "face_index" is {index}. Set "face" to one of {", ".join(SELECT_BY)}, and '
            '"face_index" to 1 or higher.'
        )
    if count == 0:
        raise FaceError(
            f"{source.name} has {source.frame_count} frames, but LatentSync found no face in any of them. Use a video "
            "with a face of at least 40 pixels that looks towards the camera, lower min_confidence, or provide face "
            "landmarks."
        )
    if index > count:
        raise FaceError(
            f'"face_index" is {index}, but {source.name} has no person with this number. '
            f'Choose a number from 1 to {count}. The preview of Face Prep and the command "faces" show all people.'
        )
    return sort_identities(identities, by, reference, at, levels).members[index - 1]


def sort_identities(
    identities: Identities,
    by: SelectBy = "largest",
    reference: np.ndarray | None = None,
    at: FaceAt | None = None,
    levels: np.ndarray | None = None,
) -> Identities:
    """Sort the identities of a clip, and number them from 1 in that order.

    "largest" sums the area over all frames, so that a person who passes close to the camera does not come first.
    Positions are means over the clip. "speaking" begins with the person whose mouth best follows the level of
    the sound, see `speech_correlation`. People without a correlation come last.

    Args:
        reference: appearance of a face, see `reference_appearance`. `reference` replaces `by`: the most similar person
            is first.
        at: the person whose face is at this point comes first. The others follow in the order of `by` or `reference`.
        levels: float64 (source frames,): sound level in each source frame, for "speaking". NaN where unknown.

    Raises:
        UsageError: the point is outside the video, or "speaking" has no levels.
        FaceError: no face is at the point, or no mouth can be compared with the sound.
    """
    center = np.array([display_width(identities.source), identities.source.height]) / 2

    def distance(identity: Identity, reference: np.ndarray) -> float:
        # Match the brightness first, because two images of one person differ in light.
        brightness = float(identity.appearances.mean()) / max(float(reference.mean()), 1.0)
        return set_distance(identity.appearances, reference[None] * brightness)

    keys: dict[str, Callable[[Identity], float]] = {
        "largest": lambda identity: -float((identity.sides_px**2).sum()),
        "leftmost": lambda identity: float(identity.center_px[0]),
        "rightmost": lambda identity: -float(identity.center_px[0]),
        "most central": lambda identity: float(np.linalg.norm(identity.center_px - center)),
        "most frames": lambda identity: -len(identity.frames),
        "speaking": lambda identity: -speech_correlation(identity, levels, identities.source.rate),
    }
    key = keys[by] if reference is None else partial(distance, reference=reference)
    ordered = sorted(identities.members, key=key)
    if by == "speaking" and reference is None and ordered and np.isposinf(key(ordered[0])):
        raise FaceError(
            f'"face" is set to speaking, but no mouth in {identities.source.name} can be compared with the sound. The '
            f"comparison needs {MIN_OPENINGS} frames with a moving mouth, and sound that is not silent. If you use "
            'face landmarks, detect them in every frame. Otherwise choose another order in "face".'
        )
    if at is not None:
        chosen = identity_at(identities, at)
        ordered.sort(key=lambda identity: identity is not chosen)
    members = enumerate(ordered, start=1)
    return replace(identities, members=tuple(replace(identity, number=number) for number, identity in members))


def speech_correlation(identity: Identity, levels: np.ndarray | None, rate: Fraction) -> float:
    """Correlation of a person's mouth opening with the sound: -1 to 1, at the best lag of up to MAX_LAG_FRAMES.

    The result is -inf if the correlation is unknown, see `lag_correlations`.

    Args:
        levels: float64 (source frames,): sound level in each source frame. NaN where unknown.
        rate: frames per second.

    Raises:
        UsageError: there are no levels.
    """
    if levels is None:
        raise UsageError(
            '"face" is set to speaking, but there is no sound. Provide the level of the sound in every frame.'
        )
    openings = np.full(len(levels), np.nan)
    openings[identity.frames] = identity.mouth_openings
    correlations = lag_correlations(openings, levels, rate, MAX_LAG_FRAMES)
    return float(np.nanmax(correlations, initial=-np.inf))


def identity_at(identities: Identities, at: FaceAt) -> Identity:
    """The person whose face box contains a point. If several boxes contain the point, take the box with the nearest
    center.

    Raises:
        UsageError: the point is outside the video.
        FaceError: no face is at the point.
    """
    source = identities.source
    if at.x >= source.width or at.y >= source.height or at.frame >= source.frame_count:
        raise UsageError(
            f'"face_at" is {at.x}, {at.y} in frame {at.frame}, but {source.name} has {source.width} x {source.height} '
            f"pixels and {source.frame_count} frames. Choose a point and a frame of the video. "
            "The numbers x, y and frame start at 0."
        )
    x, y = at.x * display_width(source) / source.width, at.y
    matches: list[tuple[float, int]] = []
    for place, identity in enumerate(identities.members):
        for x0, y0, x1, y1 in identity.boxes[identity.frames == at.frame]:
            if x0 <= x <= x1 and y0 <= y <= y1:
                matches.append((float(np.hypot(x - (x0 + x1) / 2, y - (y0 + y1) / 2)), place))
    if not matches:
        raise FaceError(
            f'"face_at" is {at.x}, {at.y} in frame {at.frame}, but {source.name} shows no face at that point. '
            "Choose a point on the face, in a frame where LatentSync detects the face."
        )
    return identities.members[min(matches)[1]]


def reference_appearance(image: np.ndarray, detector: FaceDetector) -> np.ndarray:
    """Appearance of the largest face in an image (H, W, 3), uint8 or float32 in [0, 1].

    Raises:
        FaceError: the image shows no face.
    """
    faces = detect_in_image(detector, image)
    if not faces:
        raise FaceError(
            f'"reference_face" ({image.shape[1]} x {image.shape[0]} pixels) has no face that LatentSync can detect. '
            "Use an image where the person looks towards the camera."
        )
    return appearance(image, faces[0].points)
