"""The mouth blend changes only the mouth, with an invisible edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.compositing.box_blend import apply_inpaint_mask, paste_box
from latentsync.compositing.mouth_blend import MouthBlender, mouth_weight
from latentsync.compositing.settings import MaskEdge
from latentsync.errors import UsageError
from latentsync.faces.alignment import affine_matrices, crop, keep_mask
from tests.support import alignment_golden as golden
from tests.support import seams

CASE = golden.CASES[0]


def frame_of(dtype: type) -> np.ndarray:
    frame = golden.frame(CASE, 11)
    full = {np.uint8: 1, np.uint16: 257, np.float32: np.float32(1 / 255)}[dtype]
    return (frame * np.asarray(full, dtype)).astype(dtype)


def matrix_at(dx: float = 0, dy: float = 0, resolution: int = 256) -> np.ndarray:
    return affine_matrices(golden.points(CASE)[11:] + np.array([dx, dy]), resolution)[0]


@pytest.mark.parametrize("resolution", [256, 512])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_mouth_blend_changes_nothing_outside_mask(dtype: type, resolution: int) -> None:
    frame, matrix = frame_of(dtype), matrix_at(resolution=resolution)
    given = frame.copy()
    pasted = MouthBlender(resolution, MaskEdge()).paste(frame, torch.ones(3, resolution, resolution), matrix)
    assert pasted.dtype == dtype
    changed = (pasted != frame).any(axis=-1)
    assert not (changed & ~seams.in_frame(matrix, frame.shape[:2], resolution)).any()
    assert changed.sum() > 0.5 * seams.in_frame(matrix, frame.shape[:2], resolution).sum()
    np.testing.assert_array_equal(frame, given)


def test_mouth_blend_expand_stays_inside_the_crop() -> None:
    sizes = [(mouth_weight(256, grow, 0.05) > 0).mean() for grow in (-0.1, 0, 0.1, 0.2)]
    assert sizes == sorted(set(sizes))
    for grow in (0, 0.2):
        weight = mouth_weight(256, grow, 0.05)
        assert max(weight[0].max(), weight[-1].max(), weight[:, 0].max(), weight[:, -1].max()) == 0


def test_mouth_blend_feather_is_inside_mask_and_exact() -> None:
    hard, soft = mouth_weight(256, 0, 0), mouth_weight(256, 0, 0.1)
    assert ((soft > 0) <= (hard > 0)).all()
    assert set(np.unique(hard)) <= {0, 1}
    middle = soft[:, 105]
    ramp = np.flatnonzero((middle > 0) & (middle < 1))
    first = ramp[ramp < ramp[0] + 40]
    assert len(first) == pytest.approx(0.1 * 210, abs=2), "21 px of the 210 px wide crop, give or take whole pixels"


def test_mouth_blend_full_opacity_shows_the_face() -> None:
    frame, matrix = frame_of(np.uint8), matrix_at()
    paste = MouthBlender(256, MaskEdge())
    pasted = paste.paste(frame, torch.full((3, 256, 256), 0.5), matrix)
    laid = paste._lay(matrix, frame.shape[:2])
    whole = laid.weight == 1
    assert whole.any()
    assert set(np.unique(pasted[laid.box][whole])) == {191}, "(0.5 + 1) / 2 * 255"


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_mouth_blend_places_other_crop_sizes_alike(scale: float) -> None:
    frame, matrix = frame_of(np.uint8), matrix_at()
    face = torch.from_numpy(golden.waves(256))
    size = (round(256 * scale), round(280 * scale))
    stretched = torch.nn.functional.interpolate(face[None], size, mode="bilinear", antialias=True)[0]
    one, other = (MouthBlender(256, MaskEdge()).paste(frame, given, matrix).astype(int) for given in (face, stretched))
    # smooth waves resampled once more; a shift of half a pixel would cost over 2 levels on average
    assert np.abs(one - other)[one != frame].mean() < 0.7


def test_mouth_blend_unchanged_crop_comes_back() -> None:
    frame = frame_of(np.uint8)
    face = torch.from_numpy(crop(frame, matrix_at(), 256)) / 127.5 - 1
    pasted = MouthBlender(256, MaskEdge()).paste(frame, face, matrix_at())
    assert np.abs(pasted.astype(int) - frame).max() <= 4, "two resamplings of smooth waves"


def test_mouth_blend_opacity_fades_and_protects() -> None:
    frame, matrix = frame_of(np.float32), matrix_at()
    face = torch.ones(3, 256, 256)
    paste = MouthBlender(256, MaskEdge())
    whole, half = paste.paste(frame, face, matrix), paste.paste(frame, face, matrix, 0.5)
    np.testing.assert_allclose(half, (frame + whole) / 2, atol=1e-6)  # float32 rounding
    np.testing.assert_array_equal(paste.paste(frame, face, matrix, 0.0), frame)
    level = np.ones(frame.shape[:2], np.float32)
    level[:, : frame.shape[1] // 2] = 0
    left = paste.paste(frame, face, matrix, level)
    np.testing.assert_array_equal(left[level == 0], frame[level == 0])
    np.testing.assert_array_equal(left[level == 1], whole[level == 1])


def test_mouth_blend_mask_is_cached_while_face_is_still() -> None:
    frame, paste = frame_of(np.uint8), MouthBlender(256, MaskEdge())
    face = torch.ones(3, 256, 256)
    moved = [matrix_at() + np.array([[0, 0, dx], [0, 0, 0]]) for dx in (0, 0.001, 7)]
    still = [paste.paste(frame, face, matrix) for matrix in moved]
    anew = [MouthBlender(256, MaskEdge()).paste(frame, face, matrix) for matrix in moved]
    for one, other in zip(still, anew, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1, "a mask kept may be off by less than a level"
    assert not np.array_equal(still[0], still[2])


def test_mouth_blend_face_outside_frame_changes_nothing() -> None:
    frame = frame_of(np.uint8)
    np.testing.assert_array_equal(
        MouthBlender(256, MaskEdge()).paste(frame, torch.ones(3, 256, 256), matrix_at(5000)), frame
    )


def test_mouth_blend_seam_is_softer_than_box() -> None:
    """A face of other colors shows where it ends."""
    frame, matrix = frame_of(np.uint8), matrix_at()
    seen = crop(frame, matrix, 256)
    face = torch.from_numpy(seen) / 127.5 - 1 + 0.2
    boxed = apply_inpaint_mask(face[None], seen[None], keep_mask(256))[0]
    mouth = seams.energy(MouthBlender(256, MaskEdge()).paste(frame, face, matrix), frame, matrix, 256)
    box = seams.energy(paste_box(frame, boxed, matrix), frame, matrix, 256)
    assert mouth < box / 4, f"{mouth} and {box}: a ramp of 17 px has far smaller steps than an edge"


@pytest.mark.parametrize("wrong", [{"grow": 0.3}, {"grow": -0.3}, {"feather": -0.1}, {"feather": 0.4}])
def test_mouth_blend_bad_mask_edges_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="%"):
        MaskEdge(**wrong)
