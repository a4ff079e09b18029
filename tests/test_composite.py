"""Mouths of one or two speakers in the frames: they change, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync import synthetic
from latentsync.composite import BlendSettings, composite, decoded_crops, shared_timeline
from latentsync.errors import UsageError
from latentsync.face.align import crop_size, matrices
from latentsync.timeline import Timeline
from latentsync.types import FaceTrack, LipTrack, Waveform
from tests.face import golden, seams
from tests.face.clip import Clip

CASE = golden.CASES[0]
FRAMES = 6
SETTINGS = BlendSettings()


@pytest.fixture(scope="module")
def clip() -> Clip:
    """Two copies of a picture side by side, so that there is room for two faces."""
    return Clip(np.stack([np.concatenate([golden.frame(CASE, i)] * 2, axis=1) for i in range(FRAMES)]))


def points(side: int) -> np.ndarray:
    shift = np.array([side * CASE["width"], 0])
    return golden.points(CASE)[:FRAMES] + shift


def speaker(clip: Clip, side: int, count: int = FRAMES) -> LipTrack:
    """Random latents of a real decoder; the second frame keeps the source."""
    slots = np.array([0, -1, *range(1, count - 1)])
    latents = torch.randn(count - 1, 4, 32, 32, generator=torch.Generator().manual_seed(side)).half()
    timeline = Timeline(Fraction(25), tuple(range(count)))
    waveform = Waveform(torch.zeros(1, 16000), 16000)
    return LipTrack(FaceTrack(clip, points(side)), timeline, latents, slots, waveform, synthetic.vae())


def allowed(clip: Clip, side: int, i: int) -> np.ndarray:
    matrix = matrices(points(side), 256)[i]
    return seams.in_frame(matrix, (clip.height, clip.width), 256)


def test_only_the_mouth_changes(clip: Clip) -> None:
    made = list(composite([speaker(clip, 0)], SETTINGS))
    assert len(made) == FRAMES
    assert made[1].frame is made[1].source
    for i in (0, 2, 5):
        changed = (made[i].frame != clip.frames[i]).any(axis=-1)
        assert changed.any()
        assert not (changed & ~allowed(clip, 0, i)).any()


def test_two_speakers_change_their_own_mouths_and_nothing_else(clip: Clip) -> None:
    both = list(composite([speaker(clip, 0), speaker(clip, 1, count=4)], SETTINGS))
    alone = list(composite([speaker(clip, 0)], SETTINGS))
    assert len(both) == FRAMES
    for i in range(FRAMES):
        changed = (both[i].frame != clip.frames[i]).any(axis=-1)
        second = allowed(clip, 1, i)
        assert not (changed & ~allowed(clip, 0, i) & ~second).any()
        assert (changed & second).any() == (i in (0, 2, 3)), "the second one's recording is shorter"
        np.testing.assert_array_equal(both[i].frame[~second], alone[i].frame[~second])


@pytest.mark.parametrize("mode", ["mouth", "box"])
def test_protected_pixels_stay(clip: Clip, mode: str) -> None:
    middle = int(np.median(np.nonzero(allowed(clip, 0, 0))[1]))
    protect = np.zeros((1, clip.height, clip.width), np.float32)
    protect[:, :, middle:] = 1
    made = next(composite([speaker(clip, 0)], BlendSettings(mode), protect))
    np.testing.assert_array_equal(made.frame[:, middle:], clip.frames[0][:, middle:])
    assert not np.array_equal(made.frame, clip.frames[0])


def test_crops_are_upright_and_come_back(clip: Clip) -> None:
    lips = speaker(clip, 0)
    crops = torch.from_numpy(np.stack(list(decoded_crops(lips))))
    width, height = crop_size(256)
    assert crops.shape == (FRAMES - 1, height, width, 3)
    assert 0 <= float(crops.min()) < float(crops.max()) <= 1
    plain = BlendSettings(color_match=False)
    original = next(composite([lips], plain)).frame.astype(int)
    back = next(composite([replace(lips, crops=crops)], plain)).frame.astype(int)
    grey = next(composite([replace(lips, crops=torch.full((FRAMES - 1, 50, 40, 3), 0.5))], plain)).frame.astype(int)
    changed = (original != clip.frames[0]).any(axis=-1)
    # noise resampled once more differs; grey differs by far more
    assert np.abs(back - original)[changed].mean() < np.abs(grey - original)[changed].mean()
    assert set(np.unique(grey[seams.in_frame(matrices(points(0), 256)[0], original.shape[:2], 256)])) >= {127}


def test_what_does_not_fit_is_named(clip: Clip) -> None:
    other = Clip(clip.frames[:, :-2], name="another clip")
    with pytest.raises(UsageError, match="one source"):
        shared_timeline([speaker(clip, 0), speaker(other, 0)])
    slower = replace(speaker(clip, 0), timeline=Timeline(Fraction(24), tuple(range(FRAMES))))
    with pytest.raises(UsageError, match="one rate and length"):
        shared_timeline([speaker(clip, 0), slower])
    with pytest.raises(UsageError, match="at least one speaker"):
        shared_timeline([])
    with pytest.raises(UsageError, match="protecting mask must be of 1 or 6 pictures"):
        next(composite([speaker(clip, 0)], SETTINGS, np.zeros((2, 3, 4), np.float32)))
    with pytest.raises(UsageError, match="5 crops were taken out"):
        replace(speaker(clip, 0), crops=torch.zeros(2, 8, 8, 3))
