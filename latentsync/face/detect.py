"""The faces of one frame, by MediaPipe's face mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DependencyError, FaceError, WeightsError
from ..pixels import to_bytes
from ..spec import FACE_LANDMARKER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

MESH_POINTS = 468  # of the mesh; ten more, around the irises, may follow
LEFT_BROW = (71, 63, 105, 66, 107)  # left as seen in the picture
RIGHT_BROW = (336, 296, 334, 293, 301)
NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one frame.

    landmarks: float64 (478, 2), pixels; MediaPipe's mesh (468 points) and irises. The irises may be missing.
    """

    landmarks: np.ndarray

    def __post_init__(self) -> None:
        shape = self.landmarks.shape
        if len(shape) != 2 or shape[0] < MESH_POINTS or shape[1] != 2:
            raise FaceError(
                f"a face needs landmarks of shape (478, 2), MediaPipe's mesh in pixels (or the first {MESH_POINTS}), "
                f"not {shape}"
            )
        if not np.isfinite(self.landmarks).all():
            raise FaceError("a face has landmarks that are not numbers. Leave that face out of its frame instead.")

    @property
    def points(self) -> np.ndarray:
        """float64 (3, 2), pixels: centre of the image-left brow, of the image-right brow, of the nose."""
        return np.stack([self.landmarks[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in pixels, around all landmarks."""
        (x0, y0), (x1, y1) = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)

    def __repr__(self) -> str:
        x0, y0, x1, y1 = self.box
        return f"Face({x1 - x0:.0f} x {y1 - y0:.0f} px at {x0:.0f}, {y0:.0f})"


class FaceDetector:
    """MediaPipe's face landmarker, one frame at a time; close it, or use it as a context manager.

    Args:
        model: the file `face_landmarker.task`.
        min_confidence: 0 to 1; lower finds more faces, and more that are none.
        max_faces: at most so many are looked for in a frame.

    Raises:
        DependencyError: MediaPipe cannot be imported.
        WeightsError: the model file is missing or unreadable.
    """

    def __init__(self, model: Path, min_confidence: float = 0.5, max_faces: int = 8) -> None:
        self._mediapipe = _mediapipe()
        try:
            # As bytes: MediaPipe opens no path with characters outside the system's code page.
            self._landmarker = self._open(model.read_bytes(), min_confidence, max_faces)
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{model}: no readable face landmarker ({error}). It is {FACE_LANDMARKER.size_bytes:,} bytes from "
                f"{FACE_LANDMARKER.url}; put it there, or wire landmarks of your own."
            ) from error

    def detect(self, frame: np.ndarray) -> tuple[Face, ...]:
        """The faces of a frame (H, W, 3), of any dtype that a source gives: largest first, none if there is none."""
        height, width = frame.shape[:2]
        mediapipe = self._mediapipe
        # from an array that is not uint8 and contiguous MediaPipe reads garbage, and says nothing
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=to_bytes(frame))
        meshes = self._landmarker.detect(image).face_landmarks
        faces = (Face(np.array([(point.x * width, point.y * height) for point in mesh])) for mesh in meshes)
        return largest_first(faces)

    def close(self) -> None:
        """Free MediaPipe's graph. Left to the interpreter's exit, MediaPipe prints a traceback."""
        self._landmarker.close()

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, model: bytes, min_confidence: float, max_faces: int) -> Any:  # noqa: ANN401 - imported late
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=model),
            running_mode=tasks.vision.RunningMode.IMAGE,
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
        )
        return tasks.vision.FaceLandmarker.create_from_options(options)


def largest_first(faces: Iterable[Face]) -> tuple[Face, ...]:
    """Faces of one frame by falling area."""
    return tuple(sorted(faces, key=lambda face: face.area, reverse=True))


def _mediapipe() -> Any:  # noqa: ANN401 - imported late, so that the pack loads without it
    try:
        import mediapipe
    except ImportError as error:
        raise DependencyError(
            f"MediaPipe cannot be imported ({error}). Install it in the Python that runs this: "
            "pip install 'mediapipe>=0.10.30', or wire landmarks of your own."
        ) from error
    return mediapipe
