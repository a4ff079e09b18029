"""MediaPipe as a face detector: boxes, a mesh for each, and a tiled search for small faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from io import BytesIO
from itertools import product
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from ..errors import UsageError, WeightsError, cannot_import
from ..video.color import to_uint8
from ..weights.catalog import FACE_LANDMARKER
from .detection import SAME_FACE_IOU, Box, BoxDetection, FaceDetection, iou, largest_first, same_center
from .warp import opencv

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


BOX_DETECTOR = "face_detector.tflite"  # inside the landmarker's file, a zip


CROP_SCALE = 2.0  # side of the crop around a face, in sides of its box


CROP_PX = 256  # side that the crop is brought to


TILE_SIDES_PX = (640, 320)  # the detector sees faces from a tenth of the side: from 64 and from 32 pixels


TILE_OVERLAP = 0.3  # of a tile's side: the largest face that the coarser search may have missed


TILE_DOUBT = 0.4  # of the doubt that is allowed elsewhere: enlarged hands score up to 0.75, small faces from 0.8


WHOLE = (slice(None), slice(None))


class MediaPipeDetector:
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

    def detect(self, frame: np.ndarray) -> tuple[FaceDetection, ...]:
        """The faces of a frame (H, W, 3) on its own, uint8 or float32 in [0, 1]: largest first; there may be none."""
        return self._find(frame, self.detect_boxes(frame), (), thorough=True)

    def detect_boxes(self, frame: np.ndarray) -> tuple[BoxDetection, ...]:
        """Where the whole frame, made small, seems to show faces."""
        return self._search(to_uint8(frame))

    def find(
        self,
        index: int,  # noqa: ARG002 - every frame is searched alike
        frame: np.ndarray,
        glanced: Sequence[BoxDetection],
        followed: Sequence[Box],
        *,
        thorough: bool,
    ) -> tuple[FaceDetection, ...]:
        """See `Finder.find`. Tracked boxes come first, then those of the whole frame, then those of tiles."""
        return self._find(frame, glanced, followed, thorough=thorough)

    def close(self) -> None:
        """Free MediaPipe's graphs. Left to the interpreter's exit, MediaPipe prints a traceback."""
        self._graphs.close()

    def __enter__(self) -> MediaPipeDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _find(
        self, frame: np.ndarray, glanced: Sequence[BoxDetection], followed: Sequence[Box], *, thorough: bool
    ) -> tuple[FaceDetection, ...]:
        pixels = to_uint8(frame)
        found: list[FaceDetection] = []
        self._fit_all(pixels, [_scored(box, glanced, self._min_confidence) for box in followed], found)
        self._fit_all(pixels, glanced, found)
        if thorough or (followed and not found):
            for tile in tiles(pixels.shape[0], pixels.shape[1]):
                self._fit_all(pixels, self._sure(self._search(pixels, tile)), found)
        return largest_first(found)

    def _fit_all(self, pixels: np.ndarray, candidates: Iterable[BoxDetection], found: list[FaceDetection]) -> None:
        """Add the face of each candidate, unless it is found already."""
        for candidate in candidates:
            if all(not same_center(candidate.box, face.box) for face in found):
                face = self._fit(pixels, candidate)
                if face is not None and all(iou(face.box, other.box) < SAME_FACE_IOU for other in found):
                    found.append(face)

    def _fit(self, pixels: np.ndarray, candidate: BoxDetection) -> FaceDetection | None:
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
        return FaceDetection(landmarks, candidate.score)

    def _search(self, pixels: np.ndarray, tile: tuple[slice, slice] = WHOLE) -> tuple[BoxDetection, ...]:
        """The faces in a part of the frame."""
        part = np.ascontiguousarray(pixels[tile])
        top, left = tile[0].start or 0, tile[1].start or 0
        return tuple(
            BoxDetection(_placed(found.bounding_box, left, top), float(found.categories[0].score))
            for found in self._boxes.detect(self._image(part)).detections
        )

    def _sure(self, candidates: Iterable[BoxDetection]) -> Iterator[BoxDetection]:
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


def _scored(box: Box, glanced: Sequence[BoxDetection], least: float) -> BoxDetection:
    """A followed box with the score that a glance gave to its place; without one, what the mesh asks at least."""
    scores = (seen.score for seen in glanced if same_center(seen.box, box))
    return BoxDetection(box, max(scores, default=least))


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
