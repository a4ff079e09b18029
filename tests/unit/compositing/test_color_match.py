from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.compositing.color_match import STRIDE_PX, STRONGEST_GAIN, Ring
from latentsync.faces.alignment import affine_matrices, crop, keep_mask
from tests.support import alignment_golden as golden

CASE = golden.CASES[0]
FRAME = golden.frame(CASE, 11)
MATRIX = affine_matrices(golden.points(CASE), 256)[11]
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def ring() -> Ring:
    return Ring(256)


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """The output of a perfect network: the crop of the footage."""
    return torch.from_numpy(crop(FRAME, MATRIX, 256)).float() / 127.5 - 1


def test_color_match_ring_is_in_kept_pixels(ring: Ring) -> None:
    assert 0.05 < len(ring.rows) / (256 / STRIDE_PX) ** 2 < 0.4
    assert (keep_mask(256)[ring.rows, ring.columns] > 0.99).all()


@pytest.mark.parametrize("resolution", [256, 512])
def test_color_match_leaves_neutral_face_unchanged(resolution: int) -> None:
    matrix = affine_matrices(golden.points(CASE), resolution)[11]
    face = torch.from_numpy(crop(FRAME, matrix, resolution)).float() / 127.5 - 1
    corrected = Ring(resolution).match(face, FRAME, matrix).apply(face)
    # the crop's own resampling takes a little of the finest detail's contrast
    assert (corrected - face).abs().max() < 2 * LEVEL


def test_color_match_removes_color_cast(ring: Ring, face: torch.Tensor) -> None:
    cast = face * torch.tensor([0.9, 1.1, 0.8])[:, None, None] + torch.tensor([0.1, -0.05, 0.2])[:, None, None]
    corrected = ring.match(cast, FRAME, MATRIX).apply(cast)
    assert (corrected - face).abs().max() < 2 * LEVEL  # as above


@pytest.mark.parametrize(
    "frame", [FRAME.astype(np.uint16) * 257, FRAME.astype(np.float32) / 255], ids=["uint16", "float32"]
)
def test_color_match_is_equal_at_every_bit_depth(ring: Ring, face: torch.Tensor, frame: np.ndarray) -> None:
    expected, given = ring.match(face, FRAME, MATRIX), ring.match(face, frame, MATRIX)
    # OpenCV rounds interpolated integers to whole levels
    torch.testing.assert_close(given.gain, expected.gain, atol=LEVEL, rtol=0)
    torch.testing.assert_close(given.offset, expected.offset, atol=LEVEL, rtol=0)


def test_color_match_ignores_content_inside_mask(ring: Ring, face: torch.Tensor) -> None:
    other = face.clone()
    other[:, torch.from_numpy(keep_mask(256) < 0.01)] = -1
    one, two = ring.match(face, FRAME, MATRIX), ring.match(other, FRAME, MATRIX)
    assert torch.equal(one.gain, two.gain)
    assert torch.equal(one.offset, two.offset)


def test_color_match_gain_is_bounded(ring: Ring, face: torch.Tensor) -> None:
    assert ring.match(face * 0.1, FRAME, MATRIX).gain.tolist() == pytest.approx([STRONGEST_GAIN] * 3)
    assert ring.match(torch.zeros(3, 256, 256), FRAME, MATRIX).gain.tolist() == [1, 1, 1]


def test_color_match_uses_only_pixels_in_frame(ring: Ring, face: torch.Tensor) -> None:
    """The crop is gray beyond the frame's edge. The correction ignores that."""
    nose = int(golden.points(CASE)[11][2, 0])
    half = np.ascontiguousarray(FRAME[:, :nose])
    cut = torch.from_numpy(crop(half, MATRIX, 256)).float() / 127.5 - 1
    corrected = ring.match(cut, half, MATRIX).apply(cut)
    assert (corrected - cut).abs().max() < 2 * LEVEL
    away = MATRIX + np.array([[0, 0, 1e6]] * 2)
    assert ring.match(face, FRAME, away).gain.tolist() == [1, 1, 1]


def test_color_match_is_smoothed_over_time(ring: Ring, face: torch.Tensor) -> None:
    first, jump = ring.match(face, FRAME, MATRIX), ring.match(face + 0.5, FRAME, MATRIX)
    steady = jump.after(first)
    assert (steady.offset.abs() < jump.offset.abs()).all()
    for _ in range(60):
        steady = jump.after(steady)
    assert torch.allclose(steady.offset, jump.offset, atol=1e-4)  # 0.8 ** 60 of the way is left
    assert jump.after(None) is jump


def test_color_match_works_after_face_size_changes(ring: Ring, face: torch.Tensor) -> None:
    larger = torch.nn.functional.interpolate(face[None] + 0.2, (560, 420), mode="bilinear")[0]
    correction = ring.match(larger, FRAME, MATRIX)
    assert correction.offset.tolist() == pytest.approx([-0.2] * 3, abs=0.03)  # resized twice
