"""The library on the pretend device: the CPU's results, few waits, and an end of every kind of out of memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.models.layers import LayerConfig, Upsample, attention
from latentsync.pipeline import LipSyncPipeline
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.settings import SamplerSettings
from tests.support import pretend_device
from tests.support.image_clip import Clip
from tests.support.pretend_device import Device
from tests.support.stopped_runs import ENDS, stopped_runs
from tests.support.tiny_networks import normal

COUNT, RESOLUTION, WINDOWS = 24, 64, 2
SETTINGS = SamplerSettings(num_inference_steps=3)
STEP_FILES = ("sampling/denoise", "sampling/schedulers", "models/unet", "models/layers")


@pytest.fixture
def device() -> Iterator[Device]:
    installed = pretend_device.install()
    with installed.counting(is_available=True):
        yield installed


@pytest.fixture(scope="module")
def track() -> FaceTrack:
    clip = Clip(np.random.default_rng(2).integers(0, 256, (COUNT, 96, 96, 3), np.uint8))
    return FaceTrack(clip, np.tile(np.array([[36.0, 36], [60, 36], [48, 50]]), (COUNT, 1, 1)), (), "zero-lag")


@pytest.fixture(scope="module")
def features() -> AudioFeatures:
    return AudioFeatures(normal(1, 2 * COUNT, 5, 384), Waveform(torch.zeros(1, COUNT * 640), 16_000))


@pytest.fixture(scope="module")
def expected(track: FaceTrack, features: AudioFeatures) -> tuple[torch.Tensor, np.ndarray]:
    """On the CPU."""
    lips = pipeline("cpu").sample(track, features, SETTINGS)
    return lips.latents, frames(lips)


def pipeline(device: str) -> LipSyncPipeline:
    return LipSyncPipeline.untrained(resolution=RESOLUTION, device=device)


def frames(lips: LipTrack) -> np.ndarray:
    return np.stack([made.frame for made in composite([lips], BlendSettings())])


def test_pretend_pipeline_equals_the_cpu_and_waits_little(
    device: Device, track: FaceTrack, features: AudioFeatures, expected: tuple[torch.Tensor, np.ndarray]
) -> None:
    pipe = pipeline(device.name)
    with device.counting():
        lips = pipe.sample(track, features, SETTINGS)
        made = frames(lips)
        waits, in_steps = device.total("wait"), sum(device.at("wait", file) for file in STEP_FILES)
        encoded = device.at("H2D", "latentsync/models/vae.py")
    assert torch.equal(lips.latents, expected[0])
    assert np.array_equal(made, expected[1])
    assert waits <= 8 * WINDOWS + 1, "one for the noise of the clip"
    assert in_steps == 0
    with device.counting():
        pipe.sample(track, features, SamplerSettings(seed=1, num_inference_steps=3))
        assert device.at("H2D", "latentsync/models/vae.py") == 0 < encoded, "another seed encodes no crops"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["oom", "cancel"])
def test_pretend_pipeline_stops_end_well(device: Device, kind: str) -> None:
    """tests/nightly stops at a hundred allocations."""
    stops = stopped_runs(device, kind, 2)
    assert stops.faults == []
    assert stops.ends.keys() <= ENDS[kind], stops


@pytest.mark.slow
def test_pretend_pipeline_peak_is_the_same_with_stored_crops(
    device: Device, track: FaceTrack, features: AudioFeatures
) -> None:
    pipe, peaks = pipeline(device.name), []
    for seed in range(2):
        with device.counting():
            pipe.sample(track, features, SamplerSettings(seed=seed, num_inference_steps=1))
            peaks.append(device.peak_bytes)
    assert peaks[1] <= peaks[0]


def test_pretend_pipeline_upsampling_is_not_black_on_mps(device: Device) -> None:
    config = LayerConfig(nn, attention, heads=1, groups=1, time_width=1, audio_width=1, max_frames=1)
    upsample, x = Upsample(4, config).half(), normal(1, 1, 4, 3, 5).half()
    expected = upsample.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    assert torch.equal(upsample(x), expected)
    with device.counting(is_nearest_black=True):
        assert torch.equal(upsample.to(device.name)(x.to(device.name)).cpu(), expected)


def test_pretend_pipeline_runs_without_the_dtypes_that_mps_lacks(
    device: Device, track: FaceTrack, features: AudioFeatures
) -> None:
    with device.counting(forbidden=pretend_device.MPS_FORBIDDEN):
        lips = pipeline(device.name).sample(track, features, SamplerSettings(num_inference_steps=1))
        assert len(frames(lips)) == COUNT
