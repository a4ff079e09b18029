"""Clips composed of real heads, so that the tests know where each person is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from latentsync.faces.detection import FaceDetector
from latentsync.faces.identities import Identities, Identity, cluster_tracks
from latentsync.faces.tracker import track_faces
from latentsync.video.video_file import VideoFile
from tests.support.image_clip import Clip

SIDE_PX = 240
HEADS = {"demo1": (slice(400, 1040), slice(280, 920)), "demo2": (slice(160, 800), slice(230, 870))}


@dataclass(frozen=True, eq=False)
class Actor:
    """A head on a square tile.

    frames: uint8 (n, side, side, 3).
    places: per frame the tile's left and top in pixels; the tile may lie outside the picture.
    """

    frames: np.ndarray
    places: np.ndarray

    def holds(self, frame: int, points: np.ndarray) -> bool:
        """Whether points (3, 2) lie on the tile."""
        inside = points - self.places[frame]
        return bool((inside > 0).all() and (inside < SIDE_PX).all())


@cache
def head(shared: Path, clip: str, count: int) -> np.ndarray:
    """The head of a clip's first frames: uint8 (count, 240, 240, 3)."""
    rows, columns = HEADS[clip]
    frames = VideoFile(shared / f"media/{clip}_video.mp4").read(range(count))
    size = (SIDE_PX, SIDE_PX)
    return np.stack([cv2.resize(frame[rows, columns], size, interpolation=cv2.INTER_AREA) for frame in frames])


def actor(shared: Path, clip: str, x: np.ndarray) -> Actor:
    """A head whose tile's left edge is at x (n,)."""
    return Actor(head(shared, clip, len(x)), np.stack([x, np.zeros_like(x)], axis=1).round().astype(int))


def staged(*actors: Actor, width: int = 3 * SIDE_PX) -> Clip:
    """All actors in one clip, later ones in front."""
    frames = np.full((len(actors[0].frames), SIDE_PX, width, 3), 100, np.uint8)
    for one in actors:
        for canvas, tile, (x, _) in zip(frames, one.frames, one.places, strict=True):
            left, right = max(x, 0), min(x + SIDE_PX, width)
            if left < right:
                canvas[:, left:right] = tile[:, left - x : right - x]
    return Clip(frames)


def blanked(clip: Clip, first: int, stop: int, margin_px: int = 0) -> Clip:
    """A copy with gray frames, or gray except for a margin."""
    frames = clip.frames.copy()
    frames[first:stop, margin_px : SIDE_PX - margin_px, margin_px : SIDE_PX - margin_px] = 100
    return Clip(frames)


def found(clip: Clip, detector: FaceDetector) -> Identities:
    return cluster_tracks(clip, track_faces(clip, detector))


def always_on(identity: Identity, one: Actor) -> bool:
    """Whether an identity is the actor in every frame that shows it."""
    return all(one.holds(frame, points) for frame, points in zip(identity.frames, identity.points, strict=True))
