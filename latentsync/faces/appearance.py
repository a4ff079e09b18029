"""What a face looks like, small enough to keep, and how far two looks are apart.

Not face recognition: a patch of 16 x 12 pixels from forehead to upper lip, laid straight. It tells people of one clip
apart by skin, hair, glasses and light, which hardly change from frame to frame; it cannot be trusted between pictures
taken in other light. (MediaPipe's mesh alone does not do it: on real clips the shapes of two people differ no more
than those of one person who talks.)
"""

from __future__ import annotations

import numpy as np

from ..video.color import to_uint8
from .alignment import TEMPLATE, TEMPLATE_SIZE, fit_similarity
from .warp import crop_bounds, is_empty, offset_matrix, opencv, warp_to_crop

PATCH = (12, 16)  # rows and columns of a look


SAMPLED = 4  # pixels sampled each way for one of the patch


TINT_UNIT = 10.0  # levels of color difference that weigh as much as having nothing in common


def appearance(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """A face's look: float32 (12, 16, 3) in 0..255.

    Args:
        frame: (H, W, 3), uint8 or float32 in [0, 1].
        points: (3, 2), pixels: brows and nose.
    """
    rows, columns = PATCH
    size = columns * SAMPLED, rows * SAMPLED
    target = np.array(TEMPLATE) * size[0] / TEMPLATE_SIZE[0]
    matrix = fit_similarity(points[None], target)[0][0]
    box = crop_bounds(matrix, size, (frame.shape[0], frame.shape[1]))
    if is_empty(box):
        return np.zeros((rows, columns, 3), np.float32)
    patch = warp_to_crop(to_uint8(frame[box]), offset_matrix(matrix, box), size, outside=0)
    cv2 = opencv()
    return cv2.resize(patch, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)


def appearance_distance(a: np.ndarray, b: np.ndarray) -> float:
    """0 for the same look; beyond about 0.4 it is another person. Brightness and contrast do not count."""
    shapes = [_normalized(patch.mean(axis=-1)) for patch in (a, b)]
    tint = float(np.linalg.norm(_tint(a) - _tint(b)))
    return 1 - float((shapes[0] * shapes[1]).sum()) + tint / TINT_UNIT


def set_distance(a: np.ndarray, b: np.ndarray) -> float:
    """How far two people are apart, by looks (k, 12, 16, 3) of each.

    It is the mean over one's looks of the distance to the other's most similar one.

    The nearest counts, because a head that turned looks like itself turned; the better of the two directions,
    because one of them may have been seen from more sides.
    """
    table = np.array([[appearance_distance(x, y) for y in b] for x in a])
    return float(min(table.min(axis=0).mean(), table.min(axis=1).mean()))


def _normalized(gray: np.ndarray) -> np.ndarray:
    centerd = gray - gray.mean()
    return centerd / max(float(np.linalg.norm(centerd)), 1e-6)


def _tint(patch: np.ndarray) -> np.ndarray:
    """Mean color without brightness: red against green, yellow against blue, in levels."""
    red, green, blue = patch.reshape(-1, 3).mean(axis=0)
    return np.array([red - green, (red + green) / 2 - blue])
