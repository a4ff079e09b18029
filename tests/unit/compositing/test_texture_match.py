"""Sharpness and grain of a pasted mouth, on skin whose grain is known."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import FADE_FRAMES, composite
from latentsync.compositing.settings import BLENDERS, BlendSettings
from latentsync.compositing.texture_match import (
    GRAIN_SIGMAS_PX,
    MAX_GRAIN,
    MAX_SHARPENING,
    SECOND_DIFFERENCE,
    TextureMatcher,
    grain_band_ratio,
    measure_detail,
)
from latentsync.faces.alignment import crop_size
from latentsync.faces.face_track import FaceTrack
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support import alignment_golden as golden
from tests.support.image_clip import Clip

WIDTH, HEIGHT = crop_size(256)
MATRIX = np.array([[1.0, 0, -20], [0, 1, -15]])  # the crop lies in the frame without turn or scale
MATCHER = TextureMatcher(256, 0.0, 0.08, seed=3)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    """Smooth skin: float32 (H, W, 3) in levels, with slow changes of light and color."""
    y, x = np.mgrid[: HEIGHT + 40, : WIDTH + 50].astype(np.float32)
    light = 130 + 20 * np.sin(x / 60) + 15 * np.cos(y / 45)
    return np.stack([light + 25, light, light - 20], axis=-1)


def noise(shape: tuple[int, ...], seed: int, sigma_px: float = 0) -> np.ndarray:
    field = np.random.default_rng(seed).standard_normal(shape[:2], np.float32)
    if sigma_px:
        field = cv2.GaussianBlur(field, (0, 0), sigma_px)
    return (field / field.std())[..., None]


def levels(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def with_mouth(frame: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    """The frame, and `mouth` under the mask."""
    return np.where(mask()[..., None] > 0, mouth, frame)


def mask(threshold: float = 0.0) -> np.ndarray:
    _, weight = MATCHER._in_frame(MATCHER._weight, np.empty((HEIGHT + 40, WIDTH + 50, 3), np.uint8), MATRIX)
    full = np.zeros((HEIGHT + 40, WIDTH + 50), np.float32)
    box, _ = MATCHER._in_frame(MATCHER._weight, np.empty((*full.shape, 3), np.uint8), MATRIX)
    full[box] = weight
    return np.where(full > threshold, full, 0)


@pytest.mark.parametrize("strength", [2.0, 4.0, 8.0])
def test_texture_adds_grain_of_the_measured_strength(clean: np.ndarray, strength: float) -> None:
    core, made = mask(0.99) > 0, []
    for i in range(6):
        frame = levels(clean + strength * noise(clean.shape, seed=i))
        pasted = with_mouth(frame, levels(clean))
        texture = MATCHER.measure(frame, pasted, MATRIX)
        assert texture.grain == pytest.approx(strength, rel=0.1)  # of some thousand pixels of skin
        made.append((MATCHER.apply(pasted, texture, MATRIX, i) - clean)[core].mean(axis=-1))
    assert np.std(made, axis=1) == pytest.approx([strength] * 6, rel=0.1), "steady"
    likeness = np.corrcoef(made)[~np.eye(6, dtype=bool)]
    assert np.abs(likeness).max() < 0.1, "not frozen"


def test_texture_same_seed_gives_same_pixels(clean: np.ndarray) -> None:
    frame = levels(clean + 4 * noise(clean.shape, seed=1))
    pasted = with_mouth(frame, levels(clean))
    texture = MATCHER.measure(frame, pasted, MATRIX)
    first = MATCHER.apply(pasted, texture, MATRIX, 5)
    again = TextureMatcher(256, 0.0, 0.08, seed=3).apply(pasted, texture, MATRIX, 5)
    np.testing.assert_array_equal(first, again)
    for other, number in ((TextureMatcher(256, 0.0, 0.08, seed=4), 5), (MATCHER, 6)):
        assert (first != other.apply(pasted, texture, MATRIX, number)).any()


@pytest.mark.parametrize("size_px", [0.0, 0.6])
def test_texture_grain_has_the_measured_size(clean: np.ndarray, size_px: float) -> None:
    frame = levels(clean + 6 * noise(clean.shape, 1, size_px))
    texture = MATCHER.measure(frame, with_mouth(frame, levels(clean)), MATRIX)
    assert texture.grain_sigma_px == pytest.approx(size_px, abs=0.25)
    assert texture.grain == pytest.approx(6, rel=0.15)


@pytest.mark.parametrize("sigma_px", GRAIN_SIGMAS_PX)
def test_texture_band_ratio_is_that_of_noise(sigma_px: float) -> None:
    field = 30 * noise((512, 512), 2, sigma_px)[..., 0]
    measured = measure_detail(field, np.ones(field.shape, bool))
    assert measured.coarse / measured.fine == pytest.approx(grain_band_ratio(sigma_px), rel=0.06)  # of one sample


def test_texture_clean_clip_stays(clean: np.ndarray) -> None:
    """Rounded to levels, and with another mouth that is as smooth."""
    frame = levels(clean)
    for mouth in (frame, levels(clean + 8), levels(cv2.GaussianBlur(clean, (0, 0), 3))):
        pasted = with_mouth(frame, mouth)
        made = MATCHER.apply(pasted, MATCHER.measure(frame, pasted, MATRIX), MATRIX, 0)
        assert np.abs(made.astype(int) - pasted).max() <= 1
        assert np.abs(made.astype(float) - pasted).mean() < 0.1


def test_texture_sharpens_a_blurred_mouth(clean: np.ndarray) -> None:
    """Skin with pores of two pixels. A blurred mouth comes closer to it, and never goes beyond."""
    frame = levels(clean + 10 * noise(clean.shape, 7, 2))
    pasted = with_mouth(frame, levels(cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 1.5)))
    texture = MATCHER.measure(frame, pasted, MATRIX)
    assert 1.2 < texture.sharpening <= MAX_SHARPENING
    core = mask(0.99) > 0
    original, blurred, made = (
        measure_detail(picture.astype(np.float32).mean(axis=-1), core).coarse
        for picture in (frame, pasted, MATCHER.apply(pasted, texture, MATRIX, 0))
    )
    assert blurred < 0.4 * original
    assert 1.5 * blurred < made < 1.1 * original


def test_texture_does_not_blur_or_denoise(clean: np.ndarray) -> None:
    frame = levels(clean)
    pasted = with_mouth(frame, levels(clean + 9 * noise(clean.shape, 1)))
    texture = MATCHER.measure(frame, pasted, MATRIX)
    assert texture[:2] == (1.0, 0.0)
    assert MATCHER.apply(pasted, texture, MATRIX, 0) is pasted


def test_texture_is_bounded(clean: np.ndarray) -> None:
    frame = levels(clean + 60 * noise(clean.shape, 1))
    texture = MATCHER.measure(frame, with_mouth(frame, levels(clean)), MATRIX)
    assert texture.grain == MAX_GRAIN
    assert texture.sharpening <= MAX_SHARPENING


def test_texture_keeps_all_other_pixels(clean: np.ndarray) -> None:
    frame = levels(clean + 5 * noise(clean.shape, 1))
    pasted = with_mouth(frame, levels(clean))
    texture = MATCHER.measure(frame, pasted, MATRIX)
    protect = np.ones(frame.shape[:2], np.float32)
    protect[:, : frame.shape[1] // 2] = 0
    changed = (MATCHER.apply(pasted, texture, MATRIX, 0, protect) != pasted).any(axis=-1)
    assert changed.any()
    assert not (changed & (mask() == 0)).any()
    assert not changed[:, : frame.shape[1] // 2].any()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_texture_is_equal_at_every_bit_depth(clean: np.ndarray, dtype: type) -> None:
    frame = levels(clean + 5 * noise(clean.shape, 1))
    pasted = with_mouth(frame, levels(clean))
    expected = MATCHER.apply(pasted, MATCHER.measure(frame, pasted, MATRIX), MATRIX, 0)
    scale = 257 if dtype is np.uint16 else np.float32(1 / 255)
    deep, deep_pasted = (picture.astype(dtype) * dtype(scale) for picture in (frame, pasted))
    made = MATCHER.apply(deep_pasted, MATCHER.measure(deep, deep_pasted, MATRIX), MATRIX, 0)
    assert made.dtype == dtype
    assert np.abs(made / scale - expected).max() < 0.51, "expected is rounded"


def test_texture_small_or_hidden_face_stays(clean: np.ndarray) -> None:
    frame = levels(clean + 5 * noise(clean.shape, 1))
    tiny = np.array([[30.0, 0, -300], [0, 30, -300]])  # the face is 7 pixels wide
    outside, left_of = np.array([[1.0, 0, 5000], [0, 1, 5000]]), np.array([[1.0, 0, 5000], [0, 1, 0]])
    for matrix in (tiny, outside, left_of):
        for opacity in (1.0, np.ones(frame.shape[:2], np.float32)):
            texture = MATCHER.measure(frame, levels(clean), matrix, opacity)
            assert MATCHER.apply(frame, texture, matrix, 0, opacity) is frame


def test_texture_kernel_ignores_planes_and_straight_edges() -> None:
    assert SECOND_DIFFERENCE.sum() == 0
    assert (SECOND_DIFFERENCE**2).sum() == 36
    edge = np.repeat(np.where(np.arange(20) < 10, 20.0, 200.0)[None], 20, axis=0).astype(np.float32)
    assert not cv2.filter2D(edge, -1, SECOND_DIFFERENCE).any()


@pytest.mark.parametrize("mode", BLENDERS)
def test_texture_compositor_adds_grain_to_lips_only(mode: str) -> None:
    case, count = golden.CASES[0], 3
    frames = 80 + 0.4 * np.stack([golden.frame(case, i) for i in range(count)]).astype(np.float32)  # nothing clips
    frames = levels(frames + 12 * np.stack([noise(frames.shape[1:], i) for i in range(count)]))
    clip = Clip(frames)
    lips = LipTrack(
        FaceTrack(clip, golden.points(case)[:count]),
        Timeline(Fraction(25), tuple(range(count))),
        torch.zeros(count, 4, 32, 32).half(),
        np.array([0, -1, 1]),
        Waveform(torch.zeros(1, 16000), 16000),
        random_init.vae(),
        crops=torch.full((count, 280, 210, 3), 0.5),
    )
    plain, matched, again = (
        [made.frame.astype(int) for made in composite([lips], BlendSettings(mode, match_texture=on))]
        for on in (False, True, True)
    )
    np.testing.assert_array_equal(matched, again)
    np.testing.assert_array_equal(plain[1], matched[1])
    opacity = 1 / (FADE_FRAMES + 1)  # beside frame 1, which has no lips
    lost = 1 - (1 - opacity) ** 2  # of the variance of the footage's own grain, which shows through
    for i in (0, 2):
        changed = (plain[i] != matched[i]).any(axis=-1)
        assert changed.sum() > 500
        added = np.std((matched[i] - plain[i])[changed].mean(axis=-1))
        assert 0.5 < added / (12 * lost**0.5) < 1.2, "the soft edge needs less"
