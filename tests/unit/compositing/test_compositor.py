"""Mouths of one or two speakers in the frames: they change, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync import synthetic
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import composite, decode_crops, shared_timeline
from latentsync.compositing.settings import BlendSettings, MaskEdge
from latentsync.errors import UsageError
from latentsync.faces.alignment import affine_matrices, crop, crop_size
from latentsync.faces.face_track import FaceTrack
from latentsync.models.constants import LATENT_SCALE
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.timeline import Timeline
from tests.support import alignment_golden as golden
from tests.support import seams
from tests.support.image_clip import Clip

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
    matrix = affine_matrices(points(side), 256)[i]
    return seams.in_frame(matrix, (clip.height, clip.width), 256)


def test_compositor_changes_only_the_mouth(clip: Clip) -> None:
    made = list(composite([speaker(clip, 0)], SETTINGS))
    assert len(made) == FRAMES
    assert made[1].frame is made[1].source
    for i in (0, 2, 5):
        changed = (made[i].frame != clip.frames[i]).any(axis=-1)
        assert changed.any()
        assert not (changed & ~allowed(clip, 0, i)).any()


def test_compositor_two_speakers_change_only_their_mouths(clip: Clip) -> None:
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
def test_compositor_keeps_protected_pixels(clip: Clip, mode: str) -> None:
    middle = int(np.median(np.nonzero(allowed(clip, 0, 0))[1]))
    protect = np.zeros((1, clip.height, clip.width), np.float32)
    protect[:, :, middle:] = 1
    made = next(composite([speaker(clip, 0)], BlendSettings(mode), protect))
    np.testing.assert_array_equal(made.frame[:, middle:], clip.frames[0][:, middle:])
    assert not np.array_equal(made.frame, clip.frames[0])


def test_compositor_crops_are_upright_and_come_back(clip: Clip) -> None:
    lips = speaker(clip, 0)
    crops = torch.from_numpy(np.stack(list(decode_crops(lips))))
    width, height = crop_size(256)
    assert crops.shape == (FRAMES - 1, height, width, 3)
    assert 0 <= float(crops.min()) < float(crops.max()) <= 1
    plain = BlendSettings(color_match=False)
    original = next(composite([lips], plain)).frame.astype(int)
    back = next(composite([replace(lips, crops=crops)], plain)).frame.astype(int)
    gray = next(composite([replace(lips, crops=torch.full((FRAMES - 1, 50, 40, 3), 0.5))], plain)).frame.astype(int)
    changed = (original != clip.frames[0]).any(axis=-1)
    # noise resampled once more differs; gray differs by far more
    assert np.abs(back - original)[changed].mean() < np.abs(gray - original)[changed].mean()
    assert set(np.unique(gray[seams.in_frame(affine_matrices(points(0), 256)[0], original.shape[:2], 256)])) >= {127}


def test_compositor_names_inputs_that_do_not_fit(clip: Clip) -> None:
    other = Clip(clip.frames[:, :-2], name="another clip")
    with pytest.raises(UsageError, match="one source"):
        shared_timeline([speaker(clip, 0), speaker(other, 0)])
    with pytest.raises(UsageError, match="one source"):
        shared_timeline([speaker(clip, 0), speaker(Clip(clip.frames.copy()), 0)])
    with pytest.raises(UsageError, match=r"\(6, 360, 960\), not \(360, 960\)"):
        next(composite([speaker(clip, 0)], SETTINGS, np.zeros((360, 960), np.float32)))
    slower = replace(speaker(clip, 0), timeline=Timeline(Fraction(24), tuple(range(FRAMES))))
    with pytest.raises(UsageError, match="one rate and length"):
        shared_timeline([speaker(clip, 0), slower])
    with pytest.raises(UsageError, match="at least one speaker"):
        shared_timeline([])
    with pytest.raises(UsageError, match="protecting mask must be of 1 or 6 pictures"):
        next(composite([speaker(clip, 0)], SETTINGS, np.zeros((2, 3, 4), np.float32)))
    with pytest.raises(UsageError, match="5 face crops were taken out"):
        replace(speaker(clip, 0), crops=torch.zeros(2, 8, 8, 3))


class Tinted:
    """A codec whose faces are the source's own crops in other colors: of frame i, as the latents say, `tints[i]`."""

    def __init__(self, clip: Clip, tints: list[float]) -> None:
        maps = affine_matrices(points(0), 256)
        self.crops = [torch.from_numpy(crop(frame, maps[i], 256)) for i, frame in enumerate(clip.frames)]
        self.tints = tints

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        frames = (latents[:, 0, 0, 0] * LATENT_SCALE).round().int().tolist()
        return torch.stack([self.crops[i] / 127.5 - 1 + self.tints[i] for i in frames])


def tinted(clip: Clip, tints: list[float], cuts: tuple[int, ...] = ()) -> LipTrack:
    numbers = torch.arange(float(FRAMES))[:, None, None, None].expand(-1, 4, 32, 32).half()
    track = FaceTrack(clip, points(0), cuts)
    timeline = Timeline(Fraction(25), tuple(range(FRAMES)))
    sound = Waveform(torch.zeros(1, 16000), 16000)
    return LipTrack(track, timeline, numbers, np.arange(FRAMES), sound, Tinted(clip, tints))


def cast(clip: Clip, lips: LipTrack, *, color_match: bool) -> list[float]:
    """How many levels each frame's mouth is off the source's, on average."""
    made = composite([lips], BlendSettings(edge=MaskEdge(feather=0), color_match=color_match))
    return [float((frame.astype(float) - source)[allowed(clip, 0, i)].mean()) for i, (frame, source) in enumerate(made)]


def test_compositor_removes_color_cast(clip: Clip) -> None:
    red = [0.1] * FRAMES  # 13 levels
    assert min(cast(clip, tinted(clip, red), color_match=False)) > 8
    assert max(map(abs, cast(clip, tinted(clip, red), color_match=True))) < 2
    neutral = (cast(clip, tinted(clip, [0.0] * FRAMES), color_match=match) for match in (True, False))
    np.testing.assert_allclose(*neutral, atol=0.5)


def test_compositor_color_match_restarts_at_a_cut(clip: Clip) -> None:
    """The cast is of the first shot alone: carried over, it would tint the second the other way."""
    tints = [0.1] * 3 + [0.0] * 3
    assert abs(cast(clip, tinted(clip, tints, cuts=(3,)), color_match=True)[3]) < 2
    assert abs(cast(clip, tinted(clip, tints), color_match=True)[3]) > 4, "it is carried on within a shot"
