"""Blend mode "full crop": paste the whole crop, like the official code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from latentsync.compositing.box_blend import BoxBlender, alpha_blend, apply_inpaint_mask, paste_box
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.alignment import affine_matrices, crop, crop_size, keep_mask
from latentsync.faces.warp import crop_bounds
from tests.support import alignment_golden as golden
from tests.support.image_clip import decoded

CASE = golden.CASES[0]
SHIFTS = [(0, 0), (-240, 0), (240, 0), (0, -160), (0, 200), (-240, -160)]


@pytest.mark.parametrize("case", golden.CASES, ids=lambda case: case["name"])
def test_box_blend_matches_official(case: dict[str, Any]) -> None:
    index = case["pasted_frame"]
    matrix = affine_matrices(golden.points(case), case["resolution"])[index]
    pasted = paste_box(golden.frame(case, index), golden.waves(case["resolution"]), matrix)
    golden.assert_pixels_match(pasted, golden.ALIGN[f"{case['name']}_pasted"])


@pytest.mark.parametrize("resolution", [256, 512])
def test_box_blend_matches_official_on_real_frame(shared: Path, resolution: int) -> None:
    recorded = np.load(shared / f"golden/real/paste_demo2_{resolution}.npz")
    frame = decoded(shared / "media/demo2_video.mp4", 1)[0]
    pasted = paste_box(frame, golden.waves(resolution), recorded["matrix"])
    y0, y1, x0, x1 = recorded["roi"]
    golden.assert_pixels_match(pasted[y0:y1, x0:x1], recorded["pasted"])


@pytest.mark.parametrize(("dx", "dy"), SHIFTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_box_blend_crop_equals_whole_frame(dx: int, dy: int, dtype: type) -> None:
    frame = _frame(dtype)
    matrix = _matrix(dx, dy)
    original = frame.copy()
    pasted = paste_box(frame, golden.waves(256), matrix)
    expected, weight = _whole_frame_paste(frame, golden.waves(256), matrix)
    assert pasted.dtype == dtype
    # One level: coordinates rounded at another origin, sums in another order, then truncation.
    assert np.abs(pasted.astype(float) - expected).max() <= (1 if dtype == np.uint8 else 1 / 255)
    np.testing.assert_array_equal(pasted[weight == 0], frame[weight == 0])
    np.testing.assert_array_equal(frame, original)
    assert not np.array_equal(pasted, frame)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_box_blend_changes_nothing_outside_the_box(dtype: type) -> None:
    frame = _frame(dtype)
    outside = np.ones(frame.shape[:2], bool)
    outside[crop_bounds(_matrix(), crop_size(256), frame.shape[:2])] = False
    assert outside.any()
    np.testing.assert_array_equal(paste_box(frame, golden.waves(256), _matrix())[outside], frame[outside])


def test_box_blend_face_outside_frame_changes_nothing() -> None:
    frame = _frame(np.uint8)
    pasted = paste_box(frame, golden.waves(256), _matrix(5000, 5000))
    np.testing.assert_array_equal(pasted, frame)
    assert pasted is not frame


def test_box_blend_keeps_values_above_white() -> None:
    frame = _frame(np.float32) * 4 - 1
    _, weight = _whole_frame_paste(frame, golden.waves(256), _matrix())
    pasted = paste_box(frame, golden.waves(256), _matrix())
    np.testing.assert_array_equal(pasted[weight == 0], frame[weight == 0])


def test_box_blend_tiny_face_has_no_soft_edge() -> None:
    tiny = affine_matrices(golden.points(CASE)[:1] * 0.08, 256)[0]
    frame = _frame(np.uint8)
    pasted = paste_box(frame, torch.ones(3, 256, 256), tiny)
    assert 0 < (pasted != frame).any(axis=-1).sum() < 20 * 20
    assert pasted.max() == 255


def test_box_blend_unchanged_crop_comes_back() -> None:
    frame = _frame(np.uint8)
    face = torch.from_numpy(crop(frame, _matrix(), 256)) / 127.5 - 1
    difference = np.abs(paste_box(frame, face, _matrix()).astype(int) - frame)
    # Two resamplings and a truncation on smooth waves.
    assert difference.max() <= 4


def test_inpaint_mask_keeps_original_pixels() -> None:
    keep = keep_mask(256)
    crops = np.stack([crop(golden.frame(CASE, i), _matrix(), 256) for i in (0, 1)])
    decoded_faces = torch.full((2, 3, 256, 256), 0.25)
    out = apply_inpaint_mask(decoded_faces, crops, keep)
    reference = torch.from_numpy(crops) / 127.5 - 1
    assert out.dtype == torch.float32
    outside = torch.from_numpy(keep == 1)
    assert torch.equal(out[..., outside], reference[..., outside])
    assert torch.equal(out[..., ~outside], decoded_faces[..., ~outside])


def test_box_blender_prepares_and_fades() -> None:
    """A face of another size is resized first. Half opacity gives the mean of frame and pasted frame."""
    frame, matrix = _frame(np.float32), _matrix()
    blender = BoxBlender(256, BlendSettings("full crop"))
    (face,) = blender.prepare([torch.full((3, 300, 200), 0.25)], [frame], matrix[None])
    crops = crop(frame, matrix, 256)[None]
    expected = apply_inpaint_mask(torch.full((1, 3, 256, 256), 0.25), crops, keep_mask(256))[0]
    torch.testing.assert_close(face, expected, atol=1e-6, rtol=0)  # weights of the resizing sum up to 1
    full = blender.paste(frame, face, matrix)
    np.testing.assert_array_equal(full, paste_box(frame, face, matrix))
    np.testing.assert_allclose(blender.paste(frame, face, matrix, 0.5), (frame + full) / 2, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_alpha_blend_is_exact_where_opacity_is_zero(dtype: type) -> None:
    frame, pasted = np.array([[[10, 20, 30]]], dtype), np.array([[[20, 20, 10]]], dtype)
    np.testing.assert_array_equal(alpha_blend(frame, pasted, 0.0), frame)
    np.testing.assert_array_equal(alpha_blend(frame, pasted, np.full((1, 1), 0.5, np.float32)), [[[15, 20, 20]]])
    assert alpha_blend(frame, pasted, 1.0) is pasted


def _frame(dtype: type) -> np.ndarray:
    frame = golden.frame(CASE, 11)
    return frame if dtype == np.uint8 else frame.astype(np.float32) / 255


def _matrix(dx: float = 0, dy: float = 0) -> np.ndarray:
    return affine_matrices(golden.points(CASE)[11:] + np.array([dx, dy]), 256)[0]


def _whole_frame_paste(frame: np.ndarray, face: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The official arithmetic on whole frames, in plain steps, and its blend weight."""
    width, height = crop_size(face.shape[-1])
    size = frame.shape[1], frame.shape[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(face)[None], (height, width), mode="bicubic", antialias=True
    )
    crop_pixels = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
    warped = (cv2.warpAffine(crop_pixels, matrix, size, flags=flags) / 2 + 0.5).clip(0, 1)
    cover = cv2.warpAffine(np.ones((height, width), np.float32), matrix, size, flags=flags)
    cover = cv2.erode(cover, np.ones((2, 2)))
    edge = int(cover.sum() ** 0.5) // 20
    blur = 2 * edge + 1
    weight = cv2.erode(cover, np.ones((2 * edge, 2 * edge)))
    weight = cv2.GaussianBlur(weight, (blur, blur), 0.3 * ((blur - 1) * 0.5 - 1) + 0.8)
    scale = 255 if frame.dtype == np.uint8 else 1
    out = weight[..., None] * cover[..., None] * warped * scale + (1 - weight[..., None]) * frame
    return out.astype(frame.dtype).astype(float), weight
