"""Face detections of one frame, and the protocol of a detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..errors import FaceError

if TYPE_CHECKING:
    pass


Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the frame."""


MESH_POINTS = 468  # of the mesh; ten more, around the irises, may follow


LEFT_BROW = (71, 63, 105, 66, 107)  # left as seen in the picture


RIGHT_BROW = (336, 296, 334, 293, 301)


NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)


LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP = 234, 454, 1  # the cheeks' outermost points, before the ears


NOSE_DEPTH = 1.69  # nose tip before the line between the cheeks, in halves of that line: fitted to MediaPipe's own pose


SAME_FACE_IOU = 0.4  # intersection over union from which two boxes of one frame are one face


class BoxDetection(NamedTuple):
    """Where a face may be, and how sure the box detector is of it, 0 to 1."""

    box: Box
    score: float


class FaceDetector(Protocol):
    """Where the faces of a clip come from."""

    def detect_boxes(self, frame: np.ndarray) -> tuple[BoxDetection, ...]:
        """Where faces seem to be, from the frame alone: it may run ahead, in another thread."""
        ...

    def find(
        self, index: int, frame: np.ndarray, glanced: Sequence[BoxDetection], followed: Sequence[Box], *, thorough: bool
    ) -> tuple[FaceDetection, ...]:
        """The faces of a frame, largest first.

        Args:
            index: of the frame in its source.
            frame: (H, W, 3), uint8 or float32 in [0, 1].
            glanced: what `glance` said of it.
            followed: boxes where faces were a moment ago.
            thorough: look for small faces too, though it takes long.
        """
        ...


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face in one frame.

    landmarks: float64 (478, 2), pixels; MediaPipe's mesh (468 points) and irises. The irises may be missing.
    score: how sure the detector is of it, 0 to 1.
    """

    landmarks: np.ndarray
    score: float = 1.0

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
        """float64 (3, 2), pixels: center of the image-left brow, of the image-right brow, of the nose."""
        return np.stack([self.landmarks[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])

    @property
    def box(self) -> Box:
        """x0, y0, x1, y1 in pixels, around all landmarks."""
        (x0, y0), (x1, y1) = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return box_area(self.box)

    @property
    def yaw_degrees(self) -> float:
        """How far the head is turned, from -90 to 90; positive towards the right of the picture.

        From the mesh alone, so that landmarks from elsewhere have one too: a turning nose leaves the middle between
        the cheeks by the tangent of the angle, whatever the distance.
        """
        left, right, nose = self.landmarks[[LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP]]
        across = right - left
        half = max(float(np.linalg.norm(across)) / 2, 1e-6)
        aside = float((nose - (left + right) / 2) @ across) / (2 * half * half)
        return float(np.degrees(np.arctan(aside / NOSE_DEPTH)))

    def __repr__(self) -> str:
        x0, y0, x1, y1 = self.box
        return f"Face({x1 - x0:.0f} x {y1 - y0:.0f} px at {x0:.0f}, {y0:.0f})"


def largest_first(faces: Iterable[FaceDetection]) -> tuple[FaceDetection, ...]:
    """Faces of one frame by falling area."""
    return tuple(sorted(faces, key=lambda face: face.area, reverse=True))


def box_area(box: Box) -> float:
    """In square pixels."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    shared = box_area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / max(box_area(a) + box_area(b) - shared, 1e-9)


def same_center(a: Box, b: Box) -> bool:
    """Whether the middle of each box lies in the other."""
    return all(
        inner[0] < (outer[0] + outer[2]) / 2 < inner[2] and inner[1] < (outer[1] + outer[3]) / 2 < inner[3]
        for inner, outer in ((a, b), (b, a))
    )
