"""The faces of one frame, by MediaPipe: a box detector for where, a face mesh for what.

MediaPipe's landmarker searches a whole frame too, but loses a face that its detector has seen when the face is a
tenth of the picture or less. So the detector in its file is asked where faces are, and the mesh is fitted to an
enlarged crop of each: every face fills the same part of the picture that the mesh sees, near or far.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from zipfile import BadZipFile, ZipFile

import numpy as np

from ..errors import FaceError, UsageError, WeightsError, cannot_import
from ..pixels import to_bytes
from ..spec import FACE_LANDMARKER
from .warp import opencv

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the frame."""

MESH_POINTS = 468  # of the mesh; ten more, around the irises, may follow
LEFT_BROW = (71, 63, 105, 66, 107)  # left as seen in the picture
RIGHT_BROW = (336, 296, 334, 293, 301)
NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP = 234, 454, 1  # the cheeks' outermost points, before the ears
NOSE_DEPTH = 1.69  # nose tip before the line between the cheeks, in halves of that line: fitted to MediaPipe's own pose

BOX_DETECTOR = "face_detector.tflite"  # inside the landmarker's file, a zip
CROP_SCALE = 2.0  # side of the crop around a face, in sides of its box
CROP_PX = 256  # side that the crop is brought to
TILE_SIDES_PX = (640, 320)  # the detector sees faces from a tenth of the side: from 64 and from 32 pixels
TILE_OVERLAP = 0.3  # of a tile's side: the largest face that the coarser search may have missed
TILE_DOUBT = 0.4  # of the doubt that is allowed elsewhere: enlarged hands score up to 0.75, small faces from 0.8
WHOLE = (slice(None), slice(None))
SAME_PLACE = 0.4  # intersection over union from which two boxes of one frame are one face


class Candidate(NamedTuple):
    """Where a face may be, and how sure the box detector is of it, 0 to 1."""

    box: Box
    score: float


class Finder(Protocol):
    """Where the faces of a clip come from."""

    def glance(self, frame: np.ndarray) -> tuple[Candidate, ...]:
        """Where faces seem to be, from the frame alone: it may run ahead, in another thread."""
        ...

    def find(
        self, index: int, frame: np.ndarray, glanced: Sequence[Candidate], followed: Sequence[Box], *, thorough: bool
    ) -> tuple[Face, ...]:
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
class Face:
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
        """float64 (3, 2), pixels: centre of the image-left brow, of the image-right brow, of the nose."""
        return np.stack([self.landmarks[list(group)].mean(axis=0) for group in (LEFT_BROW, RIGHT_BROW, NOSE)])

    @property
    def box(self) -> Box:
        """x0, y0, x1, y1 in pixels, around all landmarks."""
        (x0, y0), (x1, y1) = self.landmarks.min(axis=0), self.landmarks.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return area(self.box)

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


class FaceDetector:
    """MediaPipe's face detector and face mesh; close it, or use it as a context manager.

    Args:
        model: the file `face_landmarker.task`.
        min_confidence: 0 to 1; lower finds more faces, and more that are none.

    Raises:
        DependencyError: MediaPipe cannot be imported.
        UsageError: a confidence out of range.
        WeightsError: the model file is missing or unreadable.
    """

    def __init__(self, model: Path, min_confidence: float = 0.5) -> None:
        if not 0 < min_confidence <= 1:
            raise UsageError(f"min_confidence must be above 0 and at most 1, not {min_confidence}")
        self._mediapipe = _mediapipe()
        self._min_confidence = min_confidence
        self._graphs = ExitStack()
        try:
            # As bytes: MediaPipe opens no path with characters outside the system's code page.
            stored = model.read_bytes()
            boxes = self._open_boxes(ZipFile(BytesIO(stored)).read(BOX_DETECTOR), min_confidence)
            self._boxes = self._graphs.enter_context(closing(boxes))
            self._mesh = self._graphs.enter_context(closing(self._open_mesh(stored, min_confidence)))
        except (OSError, RuntimeError, ValueError, KeyError, BadZipFile) as error:
            self.close()
            raise WeightsError(
                f"{model}: no readable face landmarker ({error}). It is {FACE_LANDMARKER.size_bytes:,} bytes from "
                f"{FACE_LANDMARKER.url}; put it there, or wire landmarks of your own."
            ) from error

    def detect(self, frame: np.ndarray) -> tuple[Face, ...]:
        """The faces of a frame (H, W, 3) on its own, uint8 or float32 in [0, 1]: largest first; there may be none."""
        return self._find(frame, self.glance(frame), (), thorough=True)

    def glance(self, frame: np.ndarray) -> tuple[Candidate, ...]:
        """Where the whole frame, made small, seems to show faces."""
        return self._search(to_bytes(frame))

    def find(
        self,
        index: int,  # noqa: ARG002 - every frame is searched alike
        frame: np.ndarray,
        glanced: Sequence[Candidate],
        followed: Sequence[Box],
        *,
        thorough: bool,
    ) -> tuple[Face, ...]:
        """See `Finder.find`. Tracked boxes come first, then those of the whole frame, then those of tiles."""
        return self._find(frame, glanced, followed, thorough=thorough)

    def close(self) -> None:
        """Free MediaPipe's graphs. Left to the interpreter's exit, MediaPipe prints a traceback."""
        self._graphs.close()

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(
        self, frame: np.ndarray, glanced: Sequence[Candidate], followed: Sequence[Box], *, thorough: bool
    ) -> tuple[Face, ...]:
        pixels = to_bytes(frame)
        found: list[Face] = []
        self._fit_all(pixels, [_scored(box, glanced, self._min_confidence) for box in followed], found)
        self._fit_all(pixels, glanced, found)
        if thorough or (followed and not found):
            for tile in tiles(pixels.shape[0], pixels.shape[1]):
                self._fit_all(pixels, self._sure(self._search(pixels, tile)), found)
        return largest_first(found)

    def _fit_all(self, pixels: np.ndarray, candidates: Iterable[Candidate], found: list[Face]) -> None:
        """Add the face of each candidate, unless it is found already."""
        for candidate in candidates:
            if all(not one_place(candidate.box, face.box) for face in found):
                face = self._fit(pixels, candidate)
                if face is not None and all(overlap(face.box, other.box) < SAME_PLACE for other in found):
                    found.append(face)

    def _fit(self, pixels: np.ndarray, candidate: Candidate) -> Face | None:
        """The mesh of the face in a candidate's box."""
        x0, y0, x1, y1 = candidate.box
        side = max(x1 - x0, y1 - y0, 1.0) * CROP_SCALE
        corner = np.array([(x0 + x1 - side) / 2, (y0 + y1 - side) / 2])
        scale = CROP_PX / side
        matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        crop = opencv().warpAffine(pixels, matrix, (CROP_PX, CROP_PX))
        meshes = self._mesh.detect(self._image(crop)).face_landmarks
        if not meshes:
            return None
        landmarks = np.array([(point.x, point.y) for point in meshes[0]]) * side + corner
        return Face(landmarks, candidate.score)

    def _search(self, pixels: np.ndarray, tile: tuple[slice, slice] = WHOLE) -> tuple[Candidate, ...]:
        """The faces in a part of the frame."""
        part = np.ascontiguousarray(pixels[tile])
        top, left = tile[0].start or 0, tile[1].start or 0
        return tuple(
            Candidate(_placed(found.bounding_box, left, top), float(found.categories[0].score))
            for found in self._boxes.detect(self._image(part)).detections
        )

    def _sure(self, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Those of a tile that pass for faces: enlarged, much looks like one."""
        least = 1 - TILE_DOUBT * (1 - self._min_confidence)
        return (candidate for candidate in candidates if candidate.score >= least)

    def _image(self, pixels: np.ndarray) -> Any:  # noqa: ANN401 - imported late
        return self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels)

    def _open_boxes(self, model: bytes, min_confidence: float) -> Any:  # noqa: ANN401 - imported late
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceDetectorOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=model),
            running_mode=tasks.vision.RunningMode.IMAGE,
            min_detection_confidence=min_confidence,
        )
        return tasks.vision.FaceDetector.create_from_options(options)

    def _open_mesh(self, model: bytes, min_confidence: float) -> Any:  # noqa: ANN401 - imported late
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=model),
            running_mode=tasks.vision.RunningMode.IMAGE,
            num_faces=1,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
        )
        return tasks.vision.FaceLandmarker.create_from_options(options)


def largest_first(faces: Iterable[Face]) -> tuple[Face, ...]:
    """Faces of one frame by falling area."""
    return tuple(sorted(faces, key=lambda face: face.area, reverse=True))


def area(box: Box) -> float:
    """In square pixels."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    return shared / max(area(a) + area(b) - shared, 1e-9)


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Overlapping parts of a frame, coarse ones first: none where the whole frame is as small as a tile."""
    for side in TILE_SIDES_PX:
        if side < max(height, width):
            for top, left in product(_starts(height, side), _starts(width, side)):
                yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin, evenly spread, so that neighbours share at least TILE_OVERLAP of a side."""
    count = 1 if length <= side else 1 + int(np.ceil((length - side) / (side * (1 - TILE_OVERLAP))))
    return [round(place) for place in np.linspace(0, max(length - side, 0), count)]


def one_place(a: Box, b: Box) -> bool:
    """Whether the middle of each box lies in the other."""
    return all(
        inner[0] < (outer[0] + outer[2]) / 2 < inner[2] and inner[1] < (outer[1] + outer[3]) / 2 < inner[3]
        for inner, outer in ((a, b), (b, a))
    )


def _scored(box: Box, glanced: Sequence[Candidate], least: float) -> Candidate:
    """A followed box with the score that a glance gave to its place; without one, what the mesh asks at least."""
    scores = (seen.score for seen in glanced if one_place(seen.box, box))
    return Candidate(box, max(scores, default=least))


def _placed(box: Any, left: int, top: int) -> Box:  # noqa: ANN401 - MediaPipe's
    """A box of a tile, in the frame."""
    x, y = box.origin_x + left, box.origin_y + top
    return x, y, x + box.width, y + box.height


def _mediapipe() -> Any:  # noqa: ANN401 - imported late, so that the pack loads without it
    try:
        import mediapipe
    except ImportError as error:
        raise cannot_import("MediaPipe", "mediapipe>=0.10.30", error, "wire landmarks of your own") from error
    return mediapipe
