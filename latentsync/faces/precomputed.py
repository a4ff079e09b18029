"""Faces that somebody else found: ComfyUI's FACE_LANDMARKS, in memory or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ..errors import FaceError
from .detection import Box, BoxDetection, FaceDetection, largest_first

if TYPE_CHECKING:
    from pathlib import Path

    from ..video.frame_source import FrameSource


MOST_BYTES = 2 << 30  # of a file of landmarks: an hour of one face takes a third of that


FARTHEST_SIDES = 10  # of the picture, that a landmark may lie away from its corner


ASPECT_TOLERANCE = 0.01  # of the ratio of the two scales: a picture resized to whole pixels


class PrecomputedDetector:
    """Faces that somebody else found, as a `Finder`: per source frame its faces."""

    def __init__(self, faces: Sequence[tuple[FaceDetection, ...]]) -> None:
        self._faces = faces

    def detect_boxes(self, frame: np.ndarray) -> tuple[BoxDetection, ...]:  # noqa: ARG002 - nothing is looked for
        return ()

    def find(
        self,
        index: int,
        frame: np.ndarray,  # noqa: ARG002
        glanced: Sequence[BoxDetection],  # noqa: ARG002
        followed: Sequence[Box],  # noqa: ARG002
        *,
        thorough: bool,  # noqa: ARG002
    ) -> tuple[FaceDetection, ...]:
        return self._faces[index]


def from_comfyui(landmarks: Mapping[str, Any], source: FrameSource) -> list[tuple[FaceDetection, ...]]:
    """The faces of every source frame.

    Args:
        landmarks: `{"frames": [[{"landmarks_xy": (478, 2) pixels, ...}, ...], ...], "image_size": (H, W)}`, as
            ComfyUI's MediaPipe node makes it: the faces of each frame; arrays, tensors or lists. One frame alone
            serves for all of the source's.
        source: the frames they belong to; landmarks of a resized copy are scaled to it.

    Returns:
        Per source frame its faces, largest first.

    Raises:
        FaceError: it is not of that shape, or not of this source.
    """
    frames, image_size = _parts(landmarks)
    scale, farthest = _scale(image_size, source), FARTHEST_SIDES * max(source.height, source.width)
    if len(frames) not in (1, source.frame_count):
        raise FaceError(
            f"landmarks of {len(frames)} frames were given, but {source.name} has {source.frame_count}. "
            "Take them from the same frames, or give one frame for all."
        )
    found = [largest_first(_face(entry, scale, farthest, i) for entry in entries) for i, entries in enumerate(frames)]
    return found if len(found) == source.frame_count else found * source.frame_count


def read_json(path: Path) -> dict[str, Any]:
    """Landmarks stored as JSON in the shape that `from_comfyui` takes.

    Raises:
        FaceError: the file is missing or no JSON object.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path.stat().st_size / 1e6:,.0f} MB are more than any clip needs")
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FaceError(f"{path}: no readable landmarks ({error}); check the path, or store them again") from error
    if not isinstance(stored, dict):
        raise FaceError(f"{path}: landmarks must be a JSON object with frames and image_size; store them again")
    return cast("dict[str, Any]", stored)


def _parts(landmarks: Mapping[str, Any]) -> tuple[list[list[Any]], tuple[float, float]]:
    try:
        frames = [list(entries) for entries in landmarks["frames"]]
        height, width = (float(side) for side in landmarks["image_size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FaceError(
            f'landmarks must be {{"frames": [[face, ...], ...], "image_size": (height, width)}} ({error!r}): '
            "wire FACE_LANDMARKS as ComfyUI's own node makes them"
        ) from error
    if not frames or not (0 < height < inf and 0 < width < inf):
        raise FaceError(
            f"landmarks of {len(frames)} frames of {width:g} x {height:g} pixels are none: "
            "take them from the frames of the source"
        )
    return frames, (height, width)


def _scale(image_size: tuple[float, float], source: FrameSource) -> np.ndarray:
    """Factors (x, y) from the landmarks' pixels to the source's."""
    height, width = image_size
    x, y = source.width / width, source.height / height
    if abs(x / y - 1) > ASPECT_TOLERANCE:
        raise FaceError(
            f"the landmarks are those of a picture of {width:g} x {height:g}, but {source.name} is "
            f"{source.width} x {source.height}: another shape. Take them from the same frames."
        )
    return np.array([x, y])


def _face(entry: Any, scale: np.ndarray, farthest_px: float, frame: int) -> FaceDetection:  # noqa: ANN401 - whatever was wired in
    if not isinstance(entry, Mapping) or "landmarks_xy" not in entry:
        raise FaceError(f"landmarks, frame {frame}: each face must be a mapping with landmarks_xy")
    try:
        given = torch.as_tensor(cast("Mapping[str, Any]", entry)["landmarks_xy"], dtype=torch.float64)
        face = FaceDetection(FaceDetection(given.cpu().numpy()).landmarks * scale, float(entry.get("score", 1.0)))
    except (TypeError, ValueError, OverflowError, RuntimeError, FaceError) as error:  # torch's, for large integers
        raise FaceError(f"landmarks, frame {frame}: {error}") from error
    if not isfinite(face.score):
        raise FaceError(f"landmarks, frame {frame}: a face's score must be a number, not {face.score}")
    if np.abs(face.landmarks).max() > farthest_px:
        raise FaceError(
            f"landmarks, frame {frame}: a face lies {np.abs(face.landmarks).max():.3g} pixels from the picture's "
            "corner: leave it out, or give landmarks in pixels of this picture"
        )
    if (face.points == face.points[0]).all():
        raise FaceError(f"landmarks, frame {frame}: brows and nose of a face are on one pixel; leave such a face out")
    return face
