"""Overlapping windows, from reading the frames to the cross-faded latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.errors import UsageError
from latentsync.faces.face_track import FaceTrack
from latentsync.models.constants import WINDOW_FRAMES
from latentsync.sampling import sampler, windows
from latentsync.sampling.conditioning import sample_noise
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.sampler import StepOutput
from latentsync.sampling.settings import MAX_OVERLAP, SamplerSettings
from latentsync.sampling.windows import crossfade, split_windows
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support.image_clip import Clip

COUNT, SIDE_PX, RESOLUTION = 40, 96, 64
CUTS = (26,)
FACE = np.array([[36.0, 36], [60, 36], [48, 50]])
overlaps = st.integers(0, MAX_OVERLAP)


class ReadOnce(Clip):
    """A clip that records which frames were read."""

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__(frames)
        self.asked: list[int] = []

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        for i in indices:
            self.asked.append(i)
            yield self.frames[i]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(np.random.default_rng(2).integers(0, 256, (COUNT, SIDE_PX, SIDE_PX, 3), np.uint8))


def parts(clip: Clip) -> tuple[FaceTrack, AudioFeatures, Timeline]:
    track = FaceTrack(clip, np.tile(FACE, (COUNT, 1, 1)), CUTS, "zero-lag")
    states = torch.randn(2 * COUNT, 5, 384, generator=torch.Generator().manual_seed(1))
    features = AudioFeatures(states, Waveform(torch.zeros(1, COUNT * 640), 16000))
    return track, features, Timeline(Fraction(25), tuple(range(COUNT)))


def sampled(clip: Clip, overlap: int, steps: int = 2) -> list[StepOutput]:
    """One window at a time, because another batch size sums in another order."""
    unet, noise, room = random_init.unet(), sample_noise(1, RESOLUTION), sampler.clip_limit(1)
    settings = SamplerSettings(num_inference_steps=steps, guidance_scale=1.0, overlap=overlap)
    return list(sampler.sample_windows(unet, random_init.vae(), *parts(clip), settings, noise, room=room))


@pytest.fixture(scope="module")
def samples(clip: Clip) -> list[StepOutput]:
    return sampled(clip, overlap=4)


def collected(samples: list[StepOutput], clip: Clip) -> LipTrack:
    track, features, timeline = parts(clip)
    return sampler.build_lip_track(samples, track, timeline, features.waveform, random_init.vae())


def test_windows_overlap_is_cross_faded(clip: Clip, samples: list[StepOutput]) -> None:
    made = {one.window: one.latents[0].movedim(1, 0) for one in samples if one.step == one.steps}
    assert list(made) == [range(16), range(12, 26), range(26, 40)] == windows.plan_windows(*parts(clip), 4)
    lips = collected(samples, clip)
    assert lips.latent_index.tolist() == list(range(COUNT)), "every frame once, in order"
    first, second, third = made.values()
    assert torch.equal(lips.latents[:12], first[:12].half())
    assert torch.equal(lips.latents[16:26], second[4:].half())
    assert torch.equal(lips.latents[26:], third.half()), "a cut is no place to blend at"
    for i in range(4):
        mixed = (first[12 + i] * (4 - i) + second[i] * (1 + i)) / 5
        # half precision, and another order of the same sum
        torch.testing.assert_close(lips.latents[12 + i].float(), mixed, rtol=2e-3, atol=2e-3)
        assert not torch.equal(first[12 + i], second[i]), "or nothing would be shown"


def test_windows_shared_frame_is_read_once(clip: Clip) -> None:
    counted = ReadOnce(clip.frames)
    sampled(counted, overlap=12, steps=1)
    assert counted.asked == list(range(COUNT))


def test_windows_result_does_not_depend_on_batch(clip: Clip, samples: list[StepOutput]) -> None:
    apart = sampled(clip, overlap=0)
    assert [one.window for one in apart[::2]] == [range(16), range(16, 26), range(26, 40)]
    for i in (1, -1):
        assert torch.equal(apart[i].latents, samples[i].latents)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=80), overlaps)
def test_windows_weights_of_every_frame_sum_to_one(active: list[int], overlap: int) -> None:
    chosen = list(split_windows(active, WINDOW_FRAMES, overlap))
    # the latents of window k are its unit vector: what comes out are the weights
    weights = torch.eye(max(len(chosen), 1), dtype=torch.float64)
    made = ((window, weights[k].expand(len(window), -1)) for k, window in enumerate(chosen))
    ranges, given_weights = [], []
    for frames, latents in crossfade(made):
        assert len(frames) == len(latents) > 0
        ranges.append(frames)
        given_weights += [*zip(frames, latents, strict=True)]
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    assert [i for i, _ in given_weights] == [i for i, on in enumerate(active) if on]
    for i, weight in given_weights:
        assert float(weight.sum()) == pytest.approx(1.0)
        holders = [k for k, window in enumerate(chosen) if i in window]
        assert [k for k, share in enumerate(weight.tolist()) if share > 0] == holders


def test_windows_only_one_is_held_back() -> None:
    given_so_far: list[int] = []

    def made() -> Iterator[tuple[range, torch.Tensor]]:
        for k, window in enumerate(split_windows([1] * 100, 16, 4)):
            given_so_far.append(k)
            yield window, torch.zeros(len(window), 4, 2, 2)

    for k, _ in enumerate(crossfade(made())):
        assert given_so_far[-1] <= k + 1


@pytest.mark.parametrize("overlap", [-1, MAX_OVERLAP + 1])
def test_windows_overlap_out_of_range_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match="overlap must be from 0"):
        SamplerSettings(overlap=overlap)
