"""Faces over time: whose lips are made to speak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError
from ..types import FaceTrack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..media import FrameSource
    from .detect import Face, FaceDetector

SAME_FACE_OVERLAP = 0.2  # intersection over union from which two boxes are one person a moment later
PATIENCE_FRAMES = 12  # without the followed face, after which the largest one is followed instead


def follow_largest(source: FrameSource, faces: Sequence[Sequence[Face]]) -> FaceTrack:
    """One person through the clip: the largest face of the first frame that has any, then the one overlapping it.

    Somebody who is larger for a moment does not take over. A person out of sight for longer than
    `PATIENCE_FRAMES`, or gone with a cut, is given up for the largest face in view.

    Args:
        source: the frames that were searched.
        faces: per source frame its faces, in any order.

    Raises:
        FaceError: no frame has a face, or the faces are not those of as many frames.
    """
    if len(faces) != source.frame_count:
        raise FaceError(f"{source.name}: faces of {len(faces)} frames were given for {source.frame_count}")
    points = np.full((source.frame_count, 3, 2), np.nan)
    followed: Face | None = None
    seen = 0
    for index, candidates in enumerate(faces):
        if index - seen > PATIENCE_FRAMES:
            followed = None
        found = _largest(candidates) if followed is None else _same(followed, candidates)
        if found is not None:
            followed, seen = found, index
            points[index] = found.points
    return FaceTrack(source, points)


def detect_frames(source: FrameSource, detector: FaceDetector) -> Iterator[tuple[Face, ...]]:
    """The faces of each source frame in turn, largest first."""
    for frame in source.read(range(source.frame_count)):
        yield detector.detect(frame)


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two faces' boxes, 0 to 1."""
    ax0, ay0, ax1, ay1 = a.box
    bx0, by0, bx1, by1 = b.box
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return shared / max(a.area + b.area - shared, 1e-9)


def _largest(faces: Sequence[Face]) -> Face | None:
    return max(faces, key=lambda face: face.area, default=None)


def _same(followed: Face, faces: Sequence[Face]) -> Face | None:
    nearest = max(faces, key=lambda face: overlap(followed, face), default=None)
    return nearest if nearest is not None and overlap(followed, nearest) >= SAME_FACE_OVERLAP else None
