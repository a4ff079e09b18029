from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from latentsync.errors import FaceError
from latentsync.faces.alignment import affine_matrices, crop, crop_size, template, track_matrices
from latentsync.faces.face_track import FaceTrack
from tests.support import alignment_golden as golden
from tests.support.image_clip import black, decoded

CASE = golden.CASES[0]


@pytest.mark.parametrize("case", golden.CASES, ids=lambda case: case["name"])
def test_alignment_matches_official(case: dict[str, Any]) -> None:
    maps = affine_matrices(golden.points(case), case["resolution"])
    # 1e-3 px: upstream fits in float32.
    np.testing.assert_allclose(maps, golden.ALIGN[f"{case['name']}_matrices"], atol=1e-3)
    crops = np.stack([crop(golden.frame(case, i), maps[i], case["resolution"]) for i in case["keep"]])
    golden.assert_pixels_match(crops, golden.ALIGN[f"{case['name']}_crops"])


@pytest.mark.parametrize("resolution", [256, 512])
def test_alignment_matches_official_on_real_frames(shared: Path, resolution: int) -> None:
    recorded = np.load(shared / f"golden/real/align_demo2_{resolution}.npz")
    frames = decoded(shared / "media/demo2_video.mp4", len(recorded["landmarks"]))
    maps = affine_matrices(recorded["landmarks"], resolution)
    assert crop_size(resolution) == tuple(recorded["crop_size"][::-1])
    np.testing.assert_allclose(maps, recorded["matrices"], atol=1e-3)
    crops = np.stack([crop(frames[i], maps[i], resolution) for i in recorded["keep"]])
    golden.assert_pixels_match(crops, recorded["faces"])


def test_alignment_keeps_face_that_fits_template() -> None:
    exact = np.rint(template(256) * 8)[None]
    shrunk = affine_matrices(exact, 256)[0]
    np.testing.assert_allclose(exact[0] @ shrunk[:, :2].T + shrunk[:, 2], template(256), atol=0.1)


def test_alignment_smoothing_restarts_after_gap() -> None:
    points = golden.points(CASE)
    points[5] = np.nan
    maps = affine_matrices(points, 256)
    assert np.isnan(maps[5]).all()
    np.testing.assert_array_equal(maps[:5], affine_matrices(points[:5], 256))
    np.testing.assert_array_equal(maps[6:], affine_matrices(points[6:], 256))


def test_alignment_without_face_gives_no_matrix() -> None:
    assert np.isnan(affine_matrices(np.full((3, 3, 2), np.nan), 256)).all()


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (-240, 0), (240, 0), (0, -160), (0, 200), (-240, -160)])
@pytest.mark.parametrize("resolution", [256, 512])
def test_alignment_crop_equals_whole_frame_warp(resolution: int, dx: int, dy: int) -> None:
    frame = golden.frame(CASE, 0)
    matrix = affine_matrices(golden.points(CASE)[:1] + np.array([dx, dy]), resolution)[0]
    apart = np.abs(crop(frame, matrix, resolution).astype(int) - _whole_frame_crop(frame, matrix, resolution))
    # Coordinates rounded at another origin may cross a whole level, which truncation and Lanczos then widen.
    assert apart.max() <= 2
    assert (apart > 0).mean() < 0.01


def test_alignment_face_outside_frame_is_gray() -> None:
    matrix = affine_matrices(golden.points(CASE)[:1] + 5000.0, 256)[0]
    assert (crop(golden.frame(CASE, 0), matrix, 256) == 127).all()


def test_alignment_float_frame_gives_same_crop() -> None:
    frame = golden.frame(CASE, 0)
    matrix = affine_matrices(golden.points(CASE)[:1], 256)[0]
    ours = crop(frame.astype(np.float32) / 255, matrix, 256)
    # One level before Lanczos: 255 * (v / 255) may fall just short of v and is truncated.
    assert np.abs(ours.astype(int) - crop(frame, matrix, 256)).max() <= 3


def test_alignment_errors_name_the_frame() -> None:
    with pytest.raises(FaceError, match="Internal error: the face landmarks"):
        affine_matrices(np.zeros((4, 2)), 256)
    with pytest.raises(FaceError, match="Frame 2 shows a face that is too small"):
        affine_matrices(np.concatenate([golden.points(CASE)[:2], np.full((1, 3, 2), 40.0)]), 256)
    track = FaceTrack(black(1), np.full((1, 3, 2), 40.0))
    with pytest.raises(FaceError, match="clip: Frame 0 shows a face that is too small"):
        track_matrices(track, 256)
    with pytest.raises(FaceError, match="Internal error: the alignment of a face"):
        crop(golden.frame(CASE, 0), np.full((2, 3), np.nan), 256)


def _whole_frame_crop(frame: np.ndarray, matrix: np.ndarray, resolution: int) -> np.ndarray:
    warped = cv2.warpAffine(frame.astype(np.float32), matrix, crop_size(resolution), borderValue=(127, 127, 127))
    square = cv2.resize(warped.astype(np.uint8), (resolution, resolution), interpolation=cv2.INTER_LANCZOS4)
    return square.transpose(2, 0, 1).astype(int)
