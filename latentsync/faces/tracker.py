"""Frame-to-frame face tracking.

A face continues a track if position, size and appearance match. Otherwise (two people cross, a person leaves) the track
ends. `identities` merges the tracks of one person afterwards.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..prefetch import prefetch
from .appearance import appearance, appearance_distance
from .detection import Box, BoxDetection, DetectionHints, FaceDetection, FaceDetector, box_area, largest_first
from .shots import CUT_LEVELS, difference, thumbnail
from .warp import square_pixels

if TYPE_CHECKING:
    from ..video.frame_source import FrameSource

TILED_EVERY_FRAMES = 25  # between tiled searches while a face is tracked. One search takes as long as ten meshes
MAX_TILED_INTERVAL_FRAMES = 50  # between tiled searches while no face is tracked: 2 s at 25 fps
NEW_SHOT_RATIO = 2.0  # to the change of the previous frame. In flicker and fast pans, all frames change alike
MAX_MISSED_FRAMES = 6  # a track ends if it misses its face in more frames
MAX_SHIFT = 0.6  # of a face between two frames, in sides of the larger box
MAX_GROWTH = 1.6  # of the side of the box between two frames
SAME_FACE_DISTANCE = 0.55  # largest appearance distance between a track and its next face
LONE_FACE_DISTANCE = 0.8  # the same if no other face or track is near. Light may change, or a hand may pass
APPEARANCE_MOMENTUM = 0.8  # weight of the track's previous appearance in the exponential moving average


class TrackedFace(NamedTuple):
    """One face in one frame.

    track: number of the face's track, from 0, in order of first appearance.
    detection: position, size and yaw of the face.
    appearance: float32 (12, 16, 3), see `appearance.appearance`.
    """

    track: int
    detection: FaceDetection
    appearance: np.ndarray


class FrameResult(NamedTuple):
    """Thumbnail of one frame, see `shots.thumbnail`, and the faces in it."""

    thumbnail: np.ndarray
    faces: tuple[TrackedFace, ...]


class _Track(NamedTuple):
    """An active track: last box, mean appearance, frames since the last match."""

    number: int
    box: Box
    appearance: np.ndarray
    missed: int = 0


def track_faces(source: FrameSource, detector: FaceDetector) -> Generator[FrameResult, None, None]:
    """Detect the faces of each source frame in turn, and link them to tracks.

    The track of a face that only the tiled search finds starts late. While other faces are tracked, the delay is less
    than 25 frames. Otherwise the delay is at most the number of frames since the last face or cut, and less than 50.
    The interval between searches doubles until the search finds a face.

    Another thread decodes the next frames and runs the detector's first pass. Close this generator before the detector.
    """
    active: list[_Track] = []
    track_count = 0
    previous: np.ndarray | None = None
    change = 0.0  # from the previous frame, in levels
    next_tiled, interval = 0, 1  # in frames, for the time without a tracked face
    with closing(prefetch(_read(source, detector))) as frames:
        for index, (frame, small, boxes) in enumerate(frames):
            last_change, change = change, 0.0 if previous is None else difference(small, previous)
            previous = small
            if change >= CUT_LEVELS:
                active = []
            if change >= max(CUT_LEVELS, NEW_SHOT_RATIO * last_change):
                next_tiled, interval = index, 1
            tiled = index % TILED_EVERY_FRAMES == 0 if active else index >= next_tiled
            hints = DetectionHints(index, boxes, [track.box for track in active], tiled)
            faces = _link(frame, largest_first(detector.detect(frame, hints)), active, track_count)
            if faces:
                next_tiled, interval = index + 1, 1
            elif tiled:
                next_tiled, interval = index + interval, min(2 * interval, MAX_TILED_INTERVAL_FRAMES)
            track_count = max([track_count, *(face.track + 1 for face in faces)])
            active = _update(active, faces)
            yield FrameResult(small, faces)


def _read(
    source: FrameSource, detector: FaceDetector
) -> Iterator[tuple[np.ndarray, np.ndarray, Sequence[BoxDetection]]]:
    """Each frame with square pixels, its thumbnail and the boxes of the detector's first pass."""
    for stored in source.read(range(source.frame_count)):
        frame = square_pixels(stored, source)
        yield frame, thumbnail(frame), detector.detect_boxes(frame)


def _link(
    frame: np.ndarray, detections: Sequence[FaceDetection], active: Sequence[_Track], next_number: int
) -> tuple[TrackedFace, ...]:
    """Assign each face to the track that it continues, most similar pairs first, or to a new track."""
    appearances = [appearance(frame, detection.points) for detection in detections]
    near = [
        (i, track)
        for i, detection in enumerate(detections)
        for track in active
        if _is_reachable(track.box, detection.box)
    ]
    pairs: list[tuple[float, int, int]] = []
    for i, track in near:
        alone = sum(i == other_i or track is other for other_i, other in near) == 1
        distance = appearance_distance(track.appearance, appearances[i])
        if distance < (LONE_FACE_DISTANCE if alone else SAME_FACE_DISTANCE):
            pairs.append((distance, i, track.number))
    numbers: dict[int, int] = {}
    for _, i, number in sorted(pairs):
        if i not in numbers and number not in numbers.values():
            numbers[i] = number
    for i in range(len(detections)):
        if i not in numbers:
            numbers[i] = next_number
            next_number += 1
    return tuple(TrackedFace(numbers[i], detections[i], appearances[i]) for i in range(len(detections)))


def _update(active: Sequence[_Track], faces: Sequence[TrackedFace]) -> list[_Track]:
    """The tracks for the next frame: tracks with a face in this frame, then tracks that missed only a few frames."""
    before = {track.number: track for track in active}
    tracks: list[_Track] = []
    for number, detection, patch in faces:
        mean = patch
        if number in before:
            mean = APPEARANCE_MOMENTUM * before[number].appearance + (1 - APPEARANCE_MOMENTUM) * patch
        tracks.append(_Track(number, detection.box, mean))
    matched = {face.track for face in faces}
    missed = [track for track in active if track.number not in matched and track.missed < MAX_MISSED_FRAMES]
    return tracks + [track._replace(missed=track.missed + 1) for track in missed]


def _is_reachable(before: Box, after: Box) -> bool:
    """Whether a face can move and grow from one box to the other between two frames."""
    sides = box_area(before) ** 0.5, box_area(after) ** 0.5
    shift = np.hypot(before[0] + before[2] - after[0] - after[2], before[1] + before[3] - after[1] - after[3]) / 2
    return bool(shift <= MAX_SHIFT * max(sides) and max(sides) <= MAX_GROWTH * min(sides))
