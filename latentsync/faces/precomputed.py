"""A face detector that returns the landmarks of another program: ComfyUI's FACE_LANDMARKS, in memory or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from typing_extensions import override

from ..errors import FaceError, reason_of
from .detection import DetectionHints, FaceDetection, FaceDetector, largest_first
from .mediapipe_detector import check_mesh, face_from_mesh
from .warp import display_width

if TYPE_CHECKING:
    from pathlib import Path

    from ..video.frame_source import FrameSource

MAX_FILE_BYTES = 2 << 30  # three hours of one face
MAX_DISTANCE = 10  # of a landmark from the corner of the frame, in multiples of the longer side
ASPECT_TOLERANCE = 0.01  # for the ratio of the two scales, because resizing rounds to whole pixels


class PrecomputedDetector(FaceDetector):
    """A detector that returns the faces of another program.

    Args:
        faces: the faces of each source frame.
    """

    def __init__(self, faces: Sequence[Sequence[FaceDetection]]) -> None:
        self._faces = faces

    @override
    def detect(self, frame: np.ndarray, hints: DetectionHints) -> Sequence[FaceDetection]:
        return self._faces[hints.frame_index]


def from_comfyui(landmarks: Mapping[str, Any], source: FrameSource) -> list[tuple[FaceDetection, ...]]:
    """Convert face landmarks to the faces of every source frame.

    Args:
        landmarks: FACE_LANDMARKS of ComfyUI's MediaPipe node, with the faces of each frame, as arrays, tensors or
            lists: `{"frames": [[{"landmarks_xy": (478, 2) pixels, ...}, ...], ...], "image_size": (H, W)}`. The
            landmarks of a single frame apply to every source frame.
        source: the frames that the landmarks belong to. The function scales landmarks of a resized copy.

    Returns:
        The faces of each source frame, largest first.

    Raises:
        FaceError: the landmarks have another structure, or belong to another source.
    """
    try:
        frames = [list(faces) for faces in landmarks["frames"]]
        height, width = (float(side) for side in landmarks["image_size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FaceError(
            '"face_landmarks" needs the lists "frames" (the faces of each frame) and "image_size" (height and width). '
            "Use FACE_LANDMARKS of ComfyUI's MediaPipe node."
        ) from error
    if not frames or not (0 < height < inf and 0 < width < inf):
        raise FaceError(
            f'"face_landmarks" has {len(frames)} frames of {width:g} x {height:g} pixels, which is not valid. '
            "Detect the landmarks on the frames of the video."
        )
    scale_x, scale_y = display_width(source) / width, source.height / height
    # the landmarks may be in stored pixels or in square pixels
    aspects = source.width * height / (source.height * width), scale_x / scale_y
    if min(abs(aspect - 1) for aspect in aspects) > ASPECT_TOLERANCE:
        raise FaceError(
            f'"face_landmarks" is for frames of {width:g} x {height:g} pixels, but {source.name} is {source.width} x '
            f"{source.height} and has another aspect ratio. Detect the landmarks on the frames of this video."
        )
    if len(frames) not in (1, source.frame_count):
        raise FaceError(
            f'"face_landmarks" has {len(frames)} frames, but {source.name} has {source.frame_count}. '
            "Detect the landmarks on the same frames, or use the landmarks of one frame for the whole video."
        )
    scale = np.array([scale_x, scale_y])
    max_px = MAX_DISTANCE * max(source.height, source.width)
    faces = [largest_first(_parse_face(face, scale, max_px, i) for face in frame) for i, frame in enumerate(frames)]
    return faces if len(faces) == source.frame_count else faces * source.frame_count


def _parse_face(entry: Any, scale: np.ndarray, max_px: float, frame: int) -> FaceDetection:  # noqa: ANN401 - user data
    try:
        if not isinstance(entry, Mapping) or "landmarks_xy" not in entry:
            raise FaceError('A face has no "landmarks_xy". Use FACE_LANDMARKS of ComfyUI\'s MediaPipe node.')
        fields = cast("Mapping[str, Any]", entry)
        mesh = torch.as_tensor(fields["landmarks_xy"], dtype=torch.float64).cpu().numpy()
        check_mesh(mesh)
        mesh = mesh * scale
        if np.abs(mesh).max() > max_px:
            raise FaceError(
                f"A face has a point {np.abs(mesh).max():.3g} pixels away from the corner of the frame. "
                "Remove this face, or convert its landmarks to pixels."
            )
        face = face_from_mesh(mesh, float(fields.get("score", 1.0)))
        if (face.points == face.points[0]).all():
            raise FaceError("The eyebrows and the nose of a face are on one pixel. Remove this face.")
    except FaceError as error:
        raise FaceError(f"Face landmarks of frame {frame}: {error}") from error
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # torch raises them for large integers
        raise FaceError(
            f"Face landmarks of frame {frame}: A face cannot be read as numbers ({error}). Remove this face."
        ) from error
    return face


def read_json(path: Path) -> dict[str, Any]:
    """Read landmarks from a JSON file, in the structure that `from_comfyui` takes.

    Raises:
        FaceError: the file is missing, or is not a JSON object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it has {size / 1e6:,.0f} MB, more than {MAX_FILE_BYTES / 1e6:,.0f} MB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FaceError(
            f"{path} cannot be read as face landmarks ({reason_of(error)}). Check the path, or export the landmarks "
            "again."
        ) from error
    if not isinstance(content, dict):
        raise FaceError(f'{path} is not a JSON object with "frames" and "image_size". Export the landmarks again.')
    return cast("dict[str, Any]", content)
