from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.compositing.color_match import MAX_GAIN, STRIDE_PX, ColorMatcher
from latentsync.faces.alignment import affine_matrices, crop, keep_mask
from tests.support import alignment_golden as golden

CASE = golden.CASES[0]
FRAME = golden.frame(CASE, 11)
MATRIX = affine_matrices(golden.points(CASE), 256)[11]
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def matcher() -> ColorMatcher:
    return ColorMatcher(256)


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """The output of a perfect model: the crop of the frame."""
    return torch.from_numpy(crop(FRAME, MATRIX, 256)).float() / 127.5 - 1


def test_color_match_ring_is_in_kept_pixels(matcher: ColorMatcher) -> None:
    assert 0.05 < len(matcher.rows) / (256 / STRIDE_PX) ** 2 < 0.4
    assert (keep_mask(256)[matcher.rows, matcher.columns] > 0.99).all()


@pytest.mark.parametrize("resolution", [256, 512])
def test_color_match_leaves_neutral_face_unchanged(resolution: int) -> None:
    matrix = affine_matrices(golden.points(CASE), resolution)[11]
    face = torch.from_numpy(crop(FRAME, matrix, resolution)).float() / 127.5 - 1
    corrected = ColorMatcher(resolution).match_color(face, FRAME, matrix).apply(face)
    # Resampling the crop reduces the contrast of the finest detail.
    assert (corrected - face).abs().max() < 2 * LEVEL


def test_color_match_removes_color_cast(matcher: ColorMatcher, face: torch.Tensor) -> None:
    cast = face * torch.tensor([0.9, 1.1, 0.8])[:, None, None] + torch.tensor([0.1, -0.05, 0.2])[:, None, None]
    corrected = matcher.match_color(cast, FRAME, MATRIX).apply(cast)
    assert (corrected - face).abs().max() < 2 * LEVEL  # as above


@pytest.mark.parametrize(
    "frame", [FRAME.astype(np.uint16) * 257, FRAME.astype(np.float32) / 255], ids=["uint16", "float32"]
)
def test_color_match_is_equal_at_every_bit_depth(matcher: ColorMatcher, face: torch.Tensor, frame: np.ndarray) -> None:
    expected, correction = matcher.match_color(face, FRAME, MATRIX), matcher.match_color(face, frame, MATRIX)
    # OpenCV rounds interpolated integers to whole levels.
    torch.testing.assert_close(correction.gain, expected.gain, atol=LEVEL, rtol=0)
    torch.testing.assert_close(correction.offset, expected.offset, atol=LEVEL, rtol=0)


def test_color_match_ignores_content_inside_mask(matcher: ColorMatcher, face: torch.Tensor) -> None:
    other = face.clone()
    other[:, torch.from_numpy(keep_mask(256) < 0.01)] = -1
    correction, correction_of_other = (
        matcher.match_color(face, FRAME, MATRIX),
        matcher.match_color(other, FRAME, MATRIX),
    )
    assert torch.equal(correction.gain, correction_of_other.gain)
    assert torch.equal(correction.offset, correction_of_other.offset)


def test_color_match_gain_is_bounded(matcher: ColorMatcher, face: torch.Tensor) -> None:
    assert matcher.match_color(face * 0.1, FRAME, MATRIX).gain.tolist() == pytest.approx([MAX_GAIN] * 3)
    assert matcher.match_color(torch.zeros(3, 256, 256), FRAME, MATRIX).gain.tolist() == [1, 1, 1]


def test_color_match_uses_only_pixels_in_frame(matcher: ColorMatcher, face: torch.Tensor) -> None:
    """The crop is gray outside the frame. The correction ignores it."""
    nose = int(golden.points(CASE)[11][2, 0])
    half = np.ascontiguousarray(FRAME[:, :nose])
    cut = torch.from_numpy(crop(half, MATRIX, 256)).float() / 127.5 - 1
    corrected = matcher.match_color(cut, half, MATRIX).apply(cut)
    assert (corrected - cut).abs().max() < 2 * LEVEL
    away = MATRIX + np.array([[0, 0, 1e6]] * 2)
    assert matcher.match_color(face, FRAME, away) is None


def test_color_match_is_smoothed_over_time(matcher: ColorMatcher, face: torch.Tensor) -> None:
    first, jump = matcher.match_color(face, FRAME, MATRIX), matcher.match_color(face + 0.5, FRAME, MATRIX)
    steady = jump.smoothed(first)
    assert (steady.offset.abs() < jump.offset.abs()).all()
    for _ in range(60):
        steady = jump.smoothed(steady)
    assert torch.allclose(steady.offset, jump.offset, atol=1e-4)  # 0.8 ** 60 of the way is left
    assert jump.smoothed(None) is jump


def test_color_match_works_after_face_size_changes(matcher: ColorMatcher, face: torch.Tensor) -> None:
    larger = torch.nn.functional.interpolate(face[None] + 0.2, (560, 420), mode="bilinear")[0]
    correction = matcher.match_color(larger, FRAME, MATRIX)
    assert correction.offset.tolist() == pytest.approx([-0.2] * 3, abs=0.03)  # resized twice
