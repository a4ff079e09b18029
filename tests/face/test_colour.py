from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.face.align import crop, matrices
from latentsync.face.colour import STRONGEST_GAIN, measure, ring
from latentsync.face.mask import keep_mask
from tests.face import golden

CASE = golden.CASES[0]


def footage() -> np.ndarray:
    """A crop: uint8 (3, 256, 256)."""
    return crop(golden.frame(CASE, 11), matrices(golden.points(CASE), 256)[11], 256)


def as_face(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).float() / 127.5 - 1


def test_the_ring_lies_in_what_is_kept() -> None:
    around = ring(256).numpy()
    assert 0.05 < around.mean() < 0.4
    assert (keep_mask(256)[around] > 0.99).all()


def test_a_cast_is_removed() -> None:
    seen = footage()
    cast = as_face(seen) * torch.tensor([0.9, 1.1, 0.8])[:, None, None] + torch.tensor([0.1, -0.05, 0.2])[:, None, None]
    corrected = measure(cast, seen, ring(256)).apply(cast)
    assert (corrected - as_face(seen)).abs().max() < 1e-3  # float32 means and spreads over thousands of pixels


def test_a_neutral_face_is_left_alone() -> None:
    seen = footage()
    face = as_face(seen)
    corrected = measure(face, seen, ring(256)).apply(face)
    assert (corrected - face).abs().max() < 1e-5  # float32 rounding


def test_new_content_inside_the_mask_changes_no_correction() -> None:
    seen, around = footage(), ring(256)
    face = as_face(seen) + 0.1
    other = face.clone()
    other[:, torch.from_numpy(keep_mask(256) < 0.01)] = -1
    one, two = measure(face, seen, around), measure(other, seen, around)
    assert torch.equal(one.gain, two.gain)
    assert torch.equal(one.offset, two.offset)


def test_the_gain_is_bounded_and_flat_colours_have_none() -> None:
    seen = footage()
    pale = measure(as_face(seen) * 0.1, seen, ring(256))
    assert pale.gain.tolist() == pytest.approx([STRONGEST_GAIN] * 3)
    assert measure(torch.zeros(3, 256, 256), seen, ring(256)).gain.tolist() == [1, 1, 1]


def test_corrections_are_steadied_over_time() -> None:
    seen, around = footage(), ring(256)
    first, jump = measure(as_face(seen), seen, around), measure(as_face(seen) + 0.5, seen, around)
    steady = jump.after(first)
    assert (steady.offset.abs() < jump.offset.abs()).all()
    for _ in range(60):
        steady = jump.after(steady)
    assert torch.allclose(steady.offset, jump.offset, atol=1e-4)  # 0.8 ** 60 of the way is left
    assert jump.after(None) is jump


def test_a_face_of_another_size_is_compared_all_the_same() -> None:
    seen = footage()
    larger = torch.nn.functional.interpolate(as_face(seen)[None] + 0.2, (560, 420), mode="bilinear")[0]
    correction = measure(larger, seen, ring(256))
    assert correction.offset.tolist() == pytest.approx([-0.2] * 3, abs=0.03)  # resized twice
