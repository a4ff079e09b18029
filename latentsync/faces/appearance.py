"""Appearance descriptor of a face, and the distance between two descriptors.

The descriptor does not recognize faces. The descriptor is an aligned patch of 16 x 12 pixels from forehead to upper
lip. The descriptor distinguishes the people of one clip by skin, hair, glasses and light, which change little from
frame to frame. The descriptor cannot compare images with different light. (The shape of MediaPipe's mesh cannot replace
the descriptor. On real clips, the meshes of two people differ no more than the meshes of one talking person.)
"""

from __future__ import annotations

import numpy as np

from ..video.color import to_uint8
from .alignment import TEMPLATE, TEMPLATE_SIZE, fit_similarity
from .warp import crop_bounds, is_empty, offset_matrix, opencv, warp_to_crop

PATCH_SIZE = (16, 12)  # width and height of the descriptor
OVERSAMPLING = 4  # source samples per pixel of the descriptor, along each axis
TINT_SCALE = 10.0  # color difference, in levels of 255, that adds a distance of 1


def appearance(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The appearance descriptor of a face: float32 (12, 16, 3) in 0..255.

    Args:
        frame: (H, W, 3), uint8 or float32 in [0, 1].
        points: (3, 2), pixels: left eyebrow, right eyebrow, nose.
    """
    width, height = PATCH_SIZE
    size = width * OVERSAMPLING, height * OVERSAMPLING
    matrix = fit_similarity(points[None], np.array(TEMPLATE) * size[0] / TEMPLATE_SIZE[0])[0][0]
    bounds = crop_bounds(matrix, size, (frame.shape[0], frame.shape[1]))
    if is_empty(bounds):
        return np.zeros((height, width, 3), np.float32)
    patch = warp_to_crop(to_uint8(frame[bounds]), offset_matrix(matrix, bounds), size, outside=0)
    cv2 = opencv()
    return cv2.resize(patch, PATCH_SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)


def appearance_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance between two descriptors: 0 if they are equal, above about 0.4 for two people.

    The distance is 1 - the normalized cross-correlation of the gray patches, plus the scaled difference of the mean
    tints. Brightness and contrast have no influence.
    """
    gray_a, gray_b = (_normalized(patch.mean(axis=-1)) for patch in (a, b))
    tint_difference = float(np.linalg.norm(_tint(a) - _tint(b)))
    return 1 - float((gray_a * gray_b).sum()) + tint_difference / TINT_SCALE


def set_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance between two people, from the descriptors (k, 12, 16, 3) of each person.

    The distance is the mean distance of a descriptor to the nearest descriptor of the other set. A turned head is most
    similar to the same head in the same pose. The function computes the mean in both directions, and returns the
    smaller mean, because one set may show more sides of the head.
    """
    distances = np.array([[appearance_distance(x, y) for y in b] for x in a])
    return float(min(distances.min(axis=0).mean(), distances.min(axis=1).mean()))


def _normalized(gray: np.ndarray) -> np.ndarray:
    centered = gray - gray.mean()
    return centered / max(float(np.linalg.norm(centered)), 1e-6)


def _tint(patch: np.ndarray) -> np.ndarray:
    """float (2,): mean color without brightness, red - green and yellow - blue, in levels."""
    red, green, blue = patch.reshape(-1, 3).mean(axis=0)
    return np.array([red - green, (red + green) / 2 - blue])
