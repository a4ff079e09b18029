"""Frames without a face, from the track to the output: they stay unchanged, with a fade on both sides."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import Composite, composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.sampling import sampler, windows
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support.image_clip import Clip

COUNT, SIDE_PX, RESOLUTION = 24, 96, 64
GAP = range(8, 16)
FACE = np.array([[36.0, 36], [60, 36], [48, 50]])


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(np.random.default_rng(2).integers(0, 256, (COUNT, SIDE_PX, SIDE_PX, 3), np.uint8))


def silence() -> AudioFeatures:
    return AudioFeatures(torch.zeros(2 * COUNT, 5, 384), Waveform(torch.zeros(1, COUNT * 640), 16000))


def composites(clip: Clip, cuts: tuple[int, ...] = (), gap: range = GAP) -> list[Composite]:
    points = np.tile(FACE, (COUNT, 1, 1))
    points[list(gap)] = np.nan
    track = FaceTrack(clip, points, cuts, "zero-lag")
    timeline = Timeline(Fraction(25), tuple(range(COUNT)))
    sound = silence()
    settings, codec = SamplerSettings(seed=1, num_inference_steps=1, guidance_scale=1.0), random_init.vae()
    samples = sampler.sample_windows(random_init.unet(), codec, track, sound, timeline, settings, RESOLUTION)
    lips = sampler.build_lip_track(samples, track, timeline, sound.waveform, codec)
    return list(composite([lips], BlendSettings("full crop", color_match=False)))


def changed(frames: list[Composite]) -> np.ndarray:
    """Mean change of each frame, in levels."""
    return np.array([np.abs(frame.astype(int) - source).mean() for frame, source in frames])


def test_gap_keeps_original_frames_and_fades(clip: Clip) -> None:
    frames = composites(clip)
    for i in GAP:
        np.testing.assert_array_equal(frames[i].frame, clip.frames[i])
    change = changed(frames)
    full = change[:5].mean()
    for opacity, frame_indices in ((0.25, (7, 16)), (0.5, (6, 17)), (0.75, (5, 18)), (1.0, (4, 19))):
        # 10 %: every frame and every mouth is different noise.
        assert change[list(frame_indices)] == pytest.approx(opacity * full, rel=0.1)


def test_gap_lips_end_at_a_shot_boundary(clip: Clip) -> None:
    change = changed(composites(clip, cuts=(8, 16)))
    assert change[list(GAP)].max() == 0
    assert change[[7, 16]] == pytest.approx(change[:5].mean(), rel=0.1)


def test_gap_no_window_crosses_gap_or_cut(clip: Clip) -> None:
    points = np.tile(FACE, (COUNT, 1, 1))
    timeline = Timeline(Fraction(25), tuple(range(COUNT)))
    assert windows.plan_windows(FaceTrack(clip, points, (10,)), silence(), timeline) == [range(10), range(10, 24)]
    points[18:20] = np.nan
    track = FaceTrack(clip, points, (10,))
    assert windows.plan_windows(track, silence(), timeline) == [range(10), range(10, 18), range(20, 24)]
    heard = Timeline(Fraction(25), timeline.source_index, sound_frames=12)
    assert windows.plan_windows(track, silence(), heard) == [range(10), range(10, 12)]
