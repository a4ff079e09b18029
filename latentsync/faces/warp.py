"""Affine warps between a frame and the crop of a face. The warps process only the part of the frame under the crop.

Every matrix maps frame pixels to crop pixels, with pixel centers at whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..errors import FaceError, cannot_import

if TYPE_CHECKING:
    from ..video.frame_source import FrameSource

PixelBox = tuple[slice, slice]
"""Rows and columns."""

MARGIN_PX = 4  # for bilinear neighbors, rounding, and the zeros that erosion and blur need around the crop
STRIP_ROWS = 64


def crop_bounds(matrix: np.ndarray, crop_size: tuple[int, int], frame_size: tuple[int, int]) -> PixelBox:
    """The part of a frame under a crop.

    Args:
        matrix: (2, 3), frame pixels to crop pixels.
        crop_size: width and height of the crop in pixels.
        frame_size: height and width of the frame in pixels.

    Returns:
        Rows and columns of the upright box around the crop, with a margin, clipped to the frame. The box is empty if
        the crop lies outside the frame.

    Raises:
        FaceError: the matrix has NaN or infinite values, or maps the face to a line.
    """
    width, height = crop_size
    corners = np.array([[-1, -1], [width, -1], [-1, height], [width, height]], np.float64)
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:, :2]) == 0:
        raise FaceError("Internal error: the alignment of a face is not invertible. Please report this.")
    in_frame = transform_points(corners, invert_affine(matrix))
    limit = np.array(frame_size[::-1])
    first = np.clip(np.floor(in_frame.min(axis=0)) - MARGIN_PX, 0, limit).astype(int)
    stop = np.clip(np.ceil(in_frame.max(axis=0)) + MARGIN_PX + 1, 0, limit).astype(int)
    return slice(int(first[1]), int(stop[1])), slice(int(first[0]), int(stop[0]))


def is_empty(box: PixelBox) -> bool:
    """Whether a box has no pixels."""
    return any(side.start >= side.stop for side in box)


def strips(box: PixelBox) -> Iterator[PixelBox]:
    """Split a box into strips of a few rows, so that the pixels of a strip fit in the processor's cache."""
    rows, columns = box
    for start in range(rows.start, rows.stop, STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, rows.stop)), columns


def offset_matrix(matrix: np.ndarray, box: PixelBox) -> np.ndarray:
    """The same transform for a frame that is cropped to `box`: float64 (2, 3)."""
    rows, columns = box
    local = np.array(matrix, np.float64)
    local[:, 2] += local[:, :2] @ np.array([columns.start, rows.start], np.float64)
    return local


def warp_to_crop(pixels: np.ndarray, matrix: np.ndarray, crop_size: tuple[int, int], outside: float) -> np.ndarray:
    """Warp pixels (h, w, 3) of a frame, or of a part of it, to a crop (height, width, 3).

    The interpolation is bilinear. Crop pixels outside the frame get the value `outside`.
    """
    cv2 = opencv()
    return cv2.warpAffine(pixels, matrix, crop_size, flags=cv2.INTER_LINEAR, borderValue=(outside,) * 4)


def warp_to_frame(pixels: np.ndarray, matrix: np.ndarray, size: tuple[int, int], outside: float) -> np.ndarray:
    """Warp a crop (h, w) or (h, w, 3) to a frame. `size` is the height and width of the frame."""
    cv2 = opencv()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(pixels, matrix, size[::-1], flags=flags, borderValue=(outside,) * 4)


def warp_to_box(pixels: np.ndarray, matrix: np.ndarray, box: PixelBox, outside: float) -> np.ndarray:
    """Warp a crop (h, w) or (h, w, 3) to a part of a frame. An empty box gives an empty array of the size of the box.

    `matrix` is for the whole frame.
    """
    size = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    if 0 in size:  # OpenCV would take the size of the crop
        return np.zeros((*size, *pixels.shape[2:]), pixels.dtype)
    return warp_to_frame(pixels, offset_matrix(matrix, box), size, outside)


def sample_bilinear(frame: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The colors of a frame (H, W, 3) at `places` (n, 2), x and y in pixels inside the frame: float32 (n, 3)."""
    corner = places.min(axis=0).astype(int)
    last = np.ceil(places.max(axis=0)).astype(int)
    pixels = np.ascontiguousarray(frame[corner[1] : last[1] + 1, corner[0] : last[0] + 1])
    x, y = np.ascontiguousarray((places - corner).T[:, :, None], np.float32)
    return opencv().remap(pixels, x, y, opencv().INTER_LINEAR)[:, 0].astype(np.float32)


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply an affine matrix (2, 3) to points (n, 2). Returns points (n, 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """The inverse transform, from crop pixels to frame pixels: float64 (2, 3)."""
    return opencv().invertAffineTransform(np.asarray(matrix, np.float64))


def resize_lanczos(pixels: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 (h, w) or (h, w, 3) to `side` x `side` pixels with Lanczos-4."""
    cv2 = opencv()
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LANCZOS4)


def display_width(source: FrameSource) -> int:
    """Width of the original frames in square pixels."""
    return round(source.width * source.pixel_aspect)


def square_pixels(frame: np.ndarray, source: FrameSource) -> np.ndarray:
    """Stretch a frame of a source so that its pixels are square: (H, display_width, 3)."""
    if display_width(source) == source.width:
        return frame
    return opencv().resize(frame, (display_width(source), source.height), interpolation=opencv().INTER_LINEAR)


def to_stored_pixels(matrices: np.ndarray, source: FrameSource) -> np.ndarray:
    """Convert matrices (n, 2, 3) for frames with square pixels to matrices for the stored frames."""
    scale = display_width(source) / source.width
    shift = (scale - 1) / 2  # pixel centers are at whole numbers
    return matrices @ np.array([[scale, 0, shift], [0, 1, 0], [0, 0, 1]])


def opencv() -> ModuleType:
    """Import the module cv2. The import happens at the first use, so that the pack loads without OpenCV.

    Raises:
        DependencyError: OpenCV cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise cannot_import("OpenCV", "opencv-contrib-python", error) from error
    return cv2
