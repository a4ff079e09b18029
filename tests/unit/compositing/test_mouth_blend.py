"""Blend mode "mouth": only the mouth changes, and its edge is soft."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.compositing.box_blend import BoxBlender
from latentsync.compositing.mouth_blend import MouthBlender, mouth_weight
from latentsync.compositing.settings import BlendSettings, MaskEdge
from latentsync.errors import UsageError
from latentsync.faces.alignment import affine_matrices, crop
from tests.support import alignment_golden as golden
from tests.support import seams

CASE = golden.CASES[0]
SETTINGS = BlendSettings()


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
    original = frame.copy()
    pasted = MouthBlender(resolution, SETTINGS).paste(frame, torch.ones(3, resolution, resolution), matrix)
    assert pasted.dtype == dtype
    changed = (pasted != frame).any(axis=-1)
    assert not (changed & ~seams.in_frame(matrix, frame.shape[:2], resolution)).any()
    assert changed.sum() > 0.5 * seams.in_frame(matrix, frame.shape[:2], resolution).sum()
    np.testing.assert_array_equal(frame, original)


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
    blender = MouthBlender(256, SETTINGS)
    pasted = blender.paste(frame, torch.full((3, 256, 256), 0.5), matrix)
    mask = blender._warp_mask(matrix, frame.shape[:2])
    opaque = mask.weight == 1
    assert opaque.any()
    assert set(np.unique(pasted[mask.box][opaque])) == {191}, "(0.5 + 1) / 2 * 255"


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_mouth_blend_places_other_crop_sizes_alike(scale: float) -> None:
    frame, matrix = frame_of(np.uint8), matrix_at()
    face = torch.from_numpy(golden.waves(256))
    size = (round(256 * scale), round(280 * scale))
    stretched = torch.nn.functional.interpolate(face[None], size, mode="bilinear", antialias=True)[0]
    blender = MouthBlender(256, SETTINGS)
    pasted, pasted_stretched = (blender.paste(frame, f, matrix).astype(int) for f in (face, stretched))
    # Smooth waves, resampled once more. A shift of half a pixel would cost over 2 levels on average.
    assert np.abs(pasted - pasted_stretched)[pasted != frame].mean() < 0.7


def test_mouth_blend_unchanged_crop_comes_back() -> None:
    frame = frame_of(np.uint8)
    face = torch.from_numpy(crop(frame, matrix_at(), 256)) / 127.5 - 1
    pasted = MouthBlender(256, SETTINGS).paste(frame, face, matrix_at())
    assert np.abs(pasted.astype(int) - frame).max() <= 4, "two resamplings of smooth waves"


def test_mouth_blend_opacity_fades_and_protects() -> None:
    frame, matrix = frame_of(np.float32), matrix_at()
    face = torch.ones(3, 256, 256)
    blender = MouthBlender(256, SETTINGS)
    full, half = blender.paste(frame, face, matrix), blender.paste(frame, face, matrix, 0.5)
    np.testing.assert_allclose(half, (frame + full) / 2, atol=1e-6)  # float32 rounding
    np.testing.assert_array_equal(blender.paste(frame, face, matrix, 0.0), frame)
    opacity = np.ones(frame.shape[:2], np.float32)
    opacity[:, : frame.shape[1] // 2] = 0
    protected = blender.paste(frame, face, matrix, opacity)
    np.testing.assert_array_equal(protected[opacity == 0], frame[opacity == 0])
    np.testing.assert_array_equal(protected[opacity == 1], full[opacity == 1])


def test_mouth_blend_mask_is_cached_while_face_is_still() -> None:
    frame, blender = frame_of(np.uint8), MouthBlender(256, SETTINGS)
    face = torch.ones(3, 256, 256)
    matrices = [matrix_at() + np.array([[0, 0, dx], [0, 0, 0]]) for dx in (0, 0.001, 7)]
    masks = [blender._warp_mask(matrix, frame.shape[:2]) for matrix in matrices]
    assert masks[0] is masks[1] is not masks[2]
    cached = [blender.paste(frame, face, matrix) for matrix in matrices]
    fresh = [MouthBlender(256, SETTINGS).paste(frame, face, matrix) for matrix in matrices]
    for pasted, expected in zip(cached, fresh, strict=True):
        assert np.abs(pasted.astype(int) - expected).max() <= 1, "a cached mask may be off by less than a level"
    assert not np.array_equal(cached[0], cached[2])


def test_mouth_blend_face_outside_frame_changes_nothing() -> None:
    frame = frame_of(np.uint8)
    pasted = MouthBlender(256, SETTINGS).paste(frame, torch.ones(3, 256, 256), matrix_at(5000))
    np.testing.assert_array_equal(pasted, frame)


def test_mouth_blend_seam_is_softer_than_box() -> None:
    """The face is too bright, so its edge is visible."""
    frame, matrix = frame_of(np.uint8), matrix_at()
    face = torch.from_numpy(crop(frame, matrix, 256)) / 127.5 - 1 + 0.2
    mouth, box = (
        seams.energy(
            blender.paste(frame, blender.prepare([face], [frame], matrix[None])[0], matrix), frame, matrix, 256
        )
        for blender in (MouthBlender(256, SETTINGS), BoxBlender(256, SETTINGS))
    )
    assert mouth < box / 4, f"{mouth} and {box}: a ramp of 17 px has far smaller steps than an edge"


@pytest.mark.parametrize("wrong", [{"grow": 0.3}, {"grow": -0.3}, {"feather": -0.1}, {"feather": 0.4}])
def test_mouth_blend_bad_mask_edges_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="percent"):
        MaskEdge(**wrong)


def test_mouth_blend_smallest_mask_is_not_empty() -> None:
    assert all(mouth_weight(resolution, -0.2, 0.3).max() > 0.2 for resolution in (256, 512))
