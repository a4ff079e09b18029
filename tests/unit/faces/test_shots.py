from __future__ import annotations

import numpy as np
import pytest

from latentsync.faces.shots import detect_cuts, thumbnail

RANDOM = np.random.default_rng(5)
ONE, OTHER = (RANDOM.uniform(0, 255, (8, 8, 3)).astype(np.float32) for _ in range(2))
BLACK = np.zeros((8, 8, 3), np.float32)


def clip(*parts: tuple[np.ndarray, int]) -> np.ndarray:
    """Thumbnails of still pictures, each for some frames, with a little noise."""
    still = np.concatenate([np.repeat(picture[None], count, axis=0) for picture, count in parts])
    return still + RANDOM.normal(0, 0.5, still.shape).astype(np.float32)


def test_shots_are_where_the_picture_changes() -> None:
    assert detect_cuts(clip((ONE, 20), (OTHER, 15), (ONE, 20))) == (20, 35)
    assert detect_cuts(clip((ONE, 1), (OTHER, 1))) == (1,)
    assert detect_cuts(clip((ONE, 30))) == ()
    assert detect_cuts(ONE[None]) == ()


def test_shots_ignore_black_frames_and_flashes() -> None:
    assert detect_cuts(clip((ONE, 20), (BLACK, 3), (ONE, 20))) == ()
    assert detect_cuts(clip((ONE, 20), (BLACK + 255, 1), (ONE, 20))) == ()


def test_shots_find_short_insert_and_long_black() -> None:
    assert detect_cuts(clip((ONE, 20), (OTHER, 3), (ONE, 20))) == (20, 23)
    assert detect_cuts(clip((ONE, 20), (BLACK, 30), (ONE, 20))) == (20, 50)
    assert detect_cuts(clip((ONE, 20), (BLACK, 3), (OTHER, 20))) == (20, 23)


def test_shots_ignore_dissolve_and_camera_shake() -> None:
    share = np.linspace(0, 1, 30)[:, None, None, None]
    assert detect_cuts(((1 - share) * ONE + share * OTHER).astype(np.float32)) == ()
    shaking = np.stack([np.roll(ONE, i % 3, axis=1) for i in range(30)])
    assert detect_cuts(shaking) == ()


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (1080, 1920)])
def test_shots_thumbnail_is_the_small_picture(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    frame[:, size[1] // 2 :] = 200
    small = thumbnail(frame)
    assert small.shape == (8, 8, 3)
    np.testing.assert_allclose(small[:, -1], 200)
    np.testing.assert_allclose(thumbnail(frame.astype(np.float32) / 255), small, atol=1e-3)
    np.testing.assert_allclose(thumbnail(frame.astype(np.uint16) * 257), small, atol=1e-3)


def test_shots_ignore_covered_camera() -> None:
    covered = ONE.copy()
    covered[1:7, 1:7] = 90
    assert detect_cuts(clip((ONE, 20), (covered, 3), (ONE, 20))) == ()
    assert detect_cuts(clip((ONE, 20), (covered, 30), (ONE, 20))) == (20, 50)
