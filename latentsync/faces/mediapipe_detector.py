"""MediaPipe face detector: boxes, a face mesh for each box, and a tiled search for small faces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from io import BytesIO
from itertools import chain, product
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from typing_extensions import override

from ..errors import FaceError, UsageError, WeightsError, cannot_import, reason_of
from ..video.color import to_uint8
from ..weights.catalog import FACE_LANDMARKER
from .detection import (
    DEFAULT_MIN_CONFIDENCE,
    SAME_FACE_IOU,
    BoxDetection,
    DetectionHints,
    FaceDetection,
    FaceDetector,
    iou,
    same_center,
)
from .warp import opencv

MEDIAPIPE = "mediapipe>=0.10.32"  # what to install if MediaPipe is missing
BOX_MODEL = "face_detector.tflite"  # in face_landmarker.task, which is a zip archive
CROP_SCALE = 2.0  # side of the crop for the mesh model / side of the box
CROP_PX = 256  # input size of the mesh model

TILE_SIDES_PX = (640, 320)  # the box model finds faces above a tenth of its input: here above 64 and 32 pixels
TILE_OVERLAP = 0.3  # share of a tile's side, above every face that the frame or the larger tiles can miss
TILE_MAX_DOUBT = 0.4  # share of 1 - min_confidence. Enlarged hands score up to 0.75, small faces at least 0.8
WHOLE_FRAME = (slice(None), slice(None))

MESH_POINTS = 468  # 478 with the irises
LEFT_BROW = (71, 63, 105, 66, 107)  # on the left side of the image
RIGHT_BROW = (336, 296, 334, 293, 301)
NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP = 234, 454, 1  # the cheeks' outermost points, in front of the ears
LIPS = (13, 14, 61, 291)  # middle of the inner edges of the upper and the lower lip, corners of the mouth
NOSE_DEPTH = 1.69  # distance of the nose tip from the line between the cheeks / half of that line, fitted to MediaPipe


class MediaPipeDetector(FaceDetector):
    """MediaPipe's face detector and face mesh. Close the detector, or use it as a context manager.

    Args:
        model: the file `face_landmarker.task`.
        min_confidence: above 0, at most 1. Lower values find more faces, and more objects that are not faces.

    Raises:
        DependencyError: MediaPipe cannot be imported.
        UsageError: min_confidence is out of range.
        WeightsError: the model file is missing or unreadable.
    """

    def __init__(self, model: Path, min_confidence: float = DEFAULT_MIN_CONFIDENCE) -> None:
        if not 0 < min_confidence <= 1:
            raise UsageError(f'"min_confidence" cannot be {min_confidence}. Choose a value above 0, up to 1.')
        self._min_confidence = min_confidence
        self._min_tile_score = 1 - TILE_MAX_DOUBT * (1 - min_confidence)
        try:
            self._mediapipe: Any = import_mediapipe()
        except ImportError as error:
            raise cannot_import("MediaPipe", MEDIAPIPE, error, "provide face landmarks") from error
        self._graphs = ExitStack()
        try:
            # Pass bytes, because MediaPipe cannot open paths with characters outside the system's code page.
            content = model.read_bytes()
            box_model = ZipFile(BytesIO(content)).read(BOX_MODEL)
            self._boxes: Any = self._graphs.enter_context(closing(self._open_box_model(box_model)))
            self._mesh: Any = self._graphs.enter_context(closing(self._open_mesh_model(content)))
        except (OSError, RuntimeError, ValueError, KeyError, BadZipFile) as error:
            self.close()
            if isinstance(error, OSError) and error.filename is None:  # a system library is missing
                raise cannot_import("MediaPipe", MEDIAPIPE, error, "provide face landmarks") from error
            raise WeightsError(
                f"{model} is not a valid face landmarker of MediaPipe ({reason_of(error)}). Delete this file, download "
                f"{FACE_LANDMARKER.url} ({FACE_LANDMARKER.size_bytes:,} bytes) to this path, or provide face landmarks."
            ) from error

    def _open_box_model(self, content: bytes) -> Any:  # noqa: ANN401 - MediaPipe has no types
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceDetectorOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=content),
            running_mode=tasks.vision.RunningMode.IMAGE,
            min_detection_confidence=self._min_confidence,
        )
        return tasks.vision.FaceDetector.create_from_options(options)

    def _open_mesh_model(self, content: bytes) -> Any:  # noqa: ANN401 - MediaPipe has no types
        tasks = self._mediapipe.tasks
        options = tasks.vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_buffer=content),
            running_mode=tasks.vision.RunningMode.IMAGE,
            num_faces=1,
            min_face_detection_confidence=self._min_confidence,
            min_face_presence_confidence=self._min_confidence,
        )
        return tasks.vision.FaceLandmarker.create_from_options(options)

    @override
    def close(self) -> None:
        """Free MediaPipe's graphs. Graphs that are still open when Python exits print a traceback."""
        self._graphs.close()

    @override
    def detect_boxes(self, frame: np.ndarray) -> list[BoxDetection]:
        """Boxes in the whole frame.

        The model scales the frame down, and finds faces larger than a tenth of the longer side.
        """
        return self._detect_boxes(to_uint8(frame), WHOLE_FRAME)

    @override
    def detect(self, frame: np.ndarray, hints: DetectionHints) -> list[FaceDetection]:
        """Fit a mesh in the tracked boxes, then in the boxes of the whole frame, then in the boxes of the tiles.

        The tiled search also runs if there are tracked faces, but the detector finds no face.
        """
        pixels = to_uint8(frame)
        faces: list[FaceDetection] = []
        for box in hints.tracked:
            scores = (detection.score for detection in hints.boxes if same_center(detection.box, box))
            self._add_face(pixels, BoxDetection(box, max(scores, default=self._min_confidence)), faces)
        for detection in hints.boxes:
            self._add_face(pixels, detection, faces)
        if hints.tiled or (hints.tracked and not faces):
            in_tiles = (self._detect_boxes(pixels, tile) for tile in tiles(pixels.shape[0], pixels.shape[1]))
            for detection in chain.from_iterable(in_tiles):
                if detection.score >= self._min_tile_score:
                    self._add_face(pixels, detection, faces)
        return faces

    def _detect_boxes(self, pixels: np.ndarray, tile: tuple[slice, slice]) -> list[BoxDetection]:
        """Boxes that the model finds in one tile, in pixels of the frame."""
        top, left = tile[0].start or 0, tile[1].start or 0
        boxes: list[BoxDetection] = []
        for detection in self._boxes.detect(self._image(np.ascontiguousarray(pixels[tile]))).detections:
            box = detection.bounding_box
            x, y = box.origin_x + left, box.origin_y + top
            boxes.append(BoxDetection((x, y, x + box.width, y + box.height), float(detection.categories[0].score)))
        return boxes

    def _add_face(self, pixels: np.ndarray, detection: BoxDetection, faces: list[FaceDetection]) -> None:
        """Fit a mesh in a box, and append the face to `faces`, unless the list already contains this face."""
        if any(same_center(detection.box, face.box) for face in faces):
            return
        x0, y0, x1, y1 = detection.box
        side = max(x1 - x0, y1 - y0, 1.0) * CROP_SCALE
        corner = np.array([(x0 + x1 - side) / 2, (y0 + y1 - side) / 2])
        scale = CROP_PX / side
        matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        crop = opencv().warpAffine(pixels, matrix, (CROP_PX, CROP_PX))
        for landmarks in self._mesh.detect(self._image(crop)).face_landmarks:
            mesh = np.array([(point.x, point.y) for point in landmarks]) * side + corner
            face = face_from_mesh(mesh, detection.score)
            if all(iou(face.box, other.box) < SAME_FACE_IOU for other in faces):
                faces.append(face)

    def _image(self, pixels: np.ndarray) -> Any:  # noqa: ANN401 - MediaPipe has no types
        return self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels)


def face_from_mesh(mesh: np.ndarray, score: float = 1.0) -> FaceDetection:
    """Convert a face mesh to a detection.

    Args:
        mesh: (478, 2), pixels: MediaPipe's face mesh. The last ten points, the irises, may be missing.
        score: confidence of the detector, 0 to 1.

    Raises:
        FaceError: the mesh has another shape, or NaN or infinite values.
    """
    check_mesh(mesh)
    (x0, y0), (x1, y1) = mesh.min(axis=0).tolist(), mesh.max(axis=0).tolist()
    brow_left, brow_right, nose = (_mean_point(mesh, group) for group in (LEFT_BROW, RIGHT_BROW, NOSE))
    upper, lower, left, right = mesh[list(LIPS)]
    mouth_opening = float(np.linalg.norm(upper - lower) / max(np.linalg.norm(left - right), 1e-6))
    return FaceDetection((x0, y0, x1, y1), score, brow_left, brow_right, nose, mesh_yaw(mesh), mouth_opening)


def check_mesh(mesh: np.ndarray) -> None:
    """Raise FaceError unless `mesh` is MediaPipe's face mesh (468 or 478, 2) with finite values."""
    if mesh.ndim != 2 or mesh.shape[0] < MESH_POINTS or mesh.shape[1] != 2:
        size = " x ".join(str(side) for side in mesh.shape) or "1"
        raise FaceError(
            f"A face has {size} values instead of 478 x 2. Provide the x and y, in pixels, of each point of "
            f"MediaPipe's face mesh, or of its first {MESH_POINTS} points."
        )
    if not np.isfinite(mesh).all():
        raise FaceError("A face mesh has NaN or infinite values. Remove this face from its frame.")


def mesh_yaw(mesh: np.ndarray) -> float:
    """Yaw of the head, in degrees from -90 to 90, positive to the right side of the image.

    When the head turns, the nose tip moves away from the center between the cheeks. The shift is proportional to the
    tangent of the yaw, at every distance of the camera.
    """
    left, right, nose = mesh[[LEFT_CHEEK, RIGHT_CHEEK, NOSE_TIP]]
    width = right - left
    half = max(float(np.linalg.norm(width)) / 2, 1e-6)
    offset = float((nose - (left + right) / 2) @ width) / (2 * half * half)
    return float(np.degrees(np.arctan(offset / NOSE_DEPTH)))


def _mean_point(mesh: np.ndarray, group: Iterable[int]) -> tuple[float, float]:
    x, y = mesh[list(group)].mean(axis=0).tolist()
    return x, y


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Overlapping tiles of a frame, large tiles first. A frame that is not larger than a tile needs no tiles."""
    for side in TILE_SIDES_PX:
        if side < max(height, width):
            for top, left in product(_tile_starts(height, side), _tile_starts(width, side)):
                yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _tile_starts(length: int, side: int) -> list[int]:
    """First pixel of each tile along one axis: evenly spaced, with an overlap of at least TILE_OVERLAP."""
    count = 1 if length <= side else 1 + int(np.ceil((length - side) / (side * (1 - TILE_OVERLAP))))
    return [round(start) for start in np.linspace(0, max(length - side, 0), count)]


def import_mediapipe() -> ModuleType:
    """Import MediaPipe in another thread, because the import can keep the variables of all callers in memory.

    Without the library PortAudio, MediaPipe stores an exception, whose traceback refers to the frames of the callers.
    In a node, these variables are the images, and the networks on the GPU.

    Raises:
        ImportError: MediaPipe cannot be imported.
    """

    def work() -> ModuleType:
        import mediapipe

        return mediapipe

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
