"""Face detections of one frame, and the interface of a face detector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import FaceError

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the frame."""

Point = tuple[float, float]
"""x, y in pixels of the frame."""

DEFAULT_MIN_CONFIDENCE = 0.5
SAME_FACE_IOU = 0.4  # two boxes of one frame with at least this intersection over union show the same face


@dataclass(frozen=True, eq=False)
class FaceDetection:
    """One face in one frame.

    box: bounding box of the whole face, from forehead to chin, in pixels.
    score: confidence of the detector, 0 to 1.
    brow_left: center of the eyebrow on the left side of the image.
    brow_right: center of the eyebrow on the right side of the image.
    nose: center of the nose, between its bridge and its tip.
    yaw: degrees, -90 to 90. Positive when the head turns to the right side of the image.
    mouth_opening: distance between the inner edges of the lips / width of the mouth. None: unknown.
    """

    box: Box
    score: float
    brow_left: Point
    brow_right: Point
    nose: Point
    yaw: float
    mouth_opening: float | None = None

    def __post_init__(self) -> None:
        if not all(np.isfinite(value).all() for value in vars(self).values() if value is not None):
            raise FaceError("A face has NaN or infinite values. Remove this face from its frame.")

    @property
    def points(self) -> np.ndarray:
        """float64 (3, 2), pixels: left eyebrow, right eyebrow, nose."""
        return np.array([self.brow_left, self.brow_right, self.nose], np.float64)

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return box_area(self.box)

    def __repr__(self) -> str:
        x0, y0, x1, y1 = self.box
        return f"FaceDetection({x1 - x0:.0f} x {y1 - y0:.0f} px at {x0:.0f}, {y0:.0f})"


class BoxDetection(NamedTuple):
    """Box of a possible face, and the confidence of the box detector, 0 to 1."""

    box: Box
    score: float


class DetectionHints(NamedTuple):
    """Information from the tracker about a frame. A detector may ignore it.

    frame_index: number of the frame in its source, from 0.
    boxes: result of `FaceDetector.detect_boxes` for this frame.
    tracked: boxes of the faces that the tracker follows, each from the last frame that showed the face.
    tiled: also search enlarged tiles of the frame for small faces. This search is slow, so the tracker requests it for
        only a few frames.
    """

    frame_index: int
    boxes: Sequence[BoxDetection]
    tracked: Sequence[Box]
    tiled: bool


class FaceDetector(Protocol):
    """Base class of face detectors: implement `detect`, and add the class to `detectors.DETECTORS`."""

    def detect_boxes(self, frame: np.ndarray) -> Sequence[BoxDetection]:  # noqa: ARG002
        """Optional fast first pass over a frame.

        The tracker runs this pass early, in another thread, and passes the result as `DetectionHints.boxes`.
        """
        return ()

    def detect(self, frame: np.ndarray, hints: DetectionHints) -> Sequence[FaceDetection]:
        """All faces of a frame (H, W, 3), uint8 or float32 in [0, 1], in any order."""
        ...

    def close(self) -> None:
        """Free resources. Optional."""

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def detect_in_image(detector: FaceDetector, image: np.ndarray) -> tuple[FaceDetection, ...]:
    """The faces of a single image (H, W, 3), uint8 or float32 in [0, 1], also small faces, largest first."""
    return largest_first(detector.detect(image, DetectionHints(0, detector.detect_boxes(image), (), tiled=True)))


def largest_first(faces: Iterable[FaceDetection]) -> tuple[FaceDetection, ...]:
    """The faces of one frame, sorted by decreasing area."""
    return tuple(sorted(faces, key=lambda face: face.area, reverse=True))


def box_area(box: Box) -> float:
    """Area in square pixels, or 0 if the box is empty."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    intersection = box_area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return intersection / max(box_area(a) + box_area(b) - intersection, 1e-9)


def same_center(a: Box, b: Box) -> bool:
    """Whether the center of each box lies in the other box."""
    return all(
        inner[0] < (outer[0] + outer[2]) / 2 < inner[2] and inner[1] < (outer[1] + outer[3]) / 2 < inner[3]
        for inner, outer in ((a, b), (b, a))
    )
