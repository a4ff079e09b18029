"""Frames of every bit depth show the same picture."""

from __future__ import annotations

import numpy as np
import pytest

from latentsync.compositing import box_blend
from latentsync.faces import alignment
from latentsync.video import color

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
DEPTHS = {"uint8": LEVELS, "uint16": LEVELS.astype(np.uint16) * 257, "float32": LEVELS.astype(np.float32) / 255}


@pytest.mark.parametrize("frame", DEPTHS.values(), ids=DEPTHS)
def test_color_every_bit_depth_gives_same_uint8(frame: np.ndarray) -> None:
    np.testing.assert_array_equal(color.to_uint8(frame), LEVELS)
    np.testing.assert_allclose(
        color.to_float32(frame), LEVELS / np.float32(255), atol=1e-7, rtol=0
    )  # float32's rounding
    assert color.to_uint8(frame[:, ::-1]).flags.c_contiguous


def test_color_16_bit_rounds_to_nearest_uint8() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    np.testing.assert_array_equal(color.to_uint8(levels), np.rint(levels / 257).astype(np.uint8))


@pytest.mark.parametrize("depth", ["uint16", "float32"])
def test_color_crop_and_blend_take_every_bit_depth(depth: str) -> None:
    """The face lands in the same place, and a deep frame keeps its values around it."""
    random = np.random.default_rng(0)
    plain = random.integers(0, 256, (300, 300, 3), np.uint8)
    deep = plain.astype(np.uint16) * 257 if depth == "uint16" else plain.astype(np.float32) / 255
    (matrix,) = alignment.affine_matrices(np.array([[[120.0, 120], [180, 120], [150, 160]]]), 256)
    crops = [alignment.crop(frame, matrix, 256).astype(int) for frame in (plain, deep)]
    assert np.abs(crops[0] - crops[1]).max() <= 1, "the warp is cut off to whole levels"
    face = random.uniform(-1, 1, (3, 256, 256)).astype(np.float32)
    shallow, pasted = box_blend.paste_box(plain, face, matrix), box_blend.paste_box(deep, face, matrix)
    assert pasted.dtype == deep.dtype
    same = (shallow == plain).all(axis=-1) & (pasted == deep).all(axis=-1)
    assert same[:20].all()
    assert not same.all()
    assert np.abs(color.to_float32(pasted) * 255 - shallow).max() <= 1.01, "8 bits are cut off to whole levels"
