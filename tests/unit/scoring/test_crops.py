"""Crops are cut as in SyncNet's pipeline."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from latentsync.scoring.crops import TOP_GROWTH, cut, squares


def padded_crop(frame: np.ndarray, half: float, x: float, y: float) -> np.ndarray:
    """joonson/syncnet_python's way: pad the whole frame, then cut."""
    padding = int(half * 1.8)
    padded = np.pad(frame, ((padding, padding), (padding, padding), (0, 0)), constant_values=110)
    x, y = x + padding, y + padding
    part = padded[int(y - half) : int(y + half * 1.8), int(x - half * 1.4) : int(x + half * 1.4)]
    return cv2.resize(part, (224, 224))


@pytest.mark.parametrize("place", [(20, 60, 50), (20, 5, 8), (31.4, 110.7, 70.2), (60, 60, 45)])
def test_crop_equals_cutting_a_padded_frame(place: tuple[float, float, float]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    np.testing.assert_array_equal(cut(frame, np.array(place)), padded_crop(frame, *place)[..., ::-1])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_crop_converts_other_dtypes(dtype: type) -> None:
    frame = np.full((60, 60, 3), 1.0 if dtype is np.float32 else 65535, dtype)
    assert (cut(frame, np.array([10, 30, 30])) == 255).all()


def test_crop_outside_of_the_frame_is_gray() -> None:
    assert (cut(np.zeros((60, 60, 3), np.uint8), np.array([10, 500, 500])) == 110).all()


def test_squares_grow_the_box_and_skip_outliers() -> None:
    boxes = np.tile([10.0, 20, 40, 60], (30, 1))
    boxes[12] = [100, 100, 200, 200]
    places = squares(boxes)
    height = 40 * (1 + TOP_GROWTH)
    np.testing.assert_allclose(places[6:-6], np.tile([height / 2, 25, 60 - height / 2], (18, 1)))
