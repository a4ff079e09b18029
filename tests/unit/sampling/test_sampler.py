"""The sampler: from the frames that are read to the latents of a lip track."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.errors import FaceError, WeightsError
from latentsync.faces.face_track import FaceTrack
from latentsync.models.protocols import AudioKV
from latentsync.oom import BatchLimit
from latentsync.sampling.conditioning import ConditioningStore, sample_noise
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.sampler import (
    KEPT_GROUPS,
    StepOutput,
    build_lip_track,
    encode_window,
    num_sampling_steps,
    prepare_windows,
    read_windows,
    sample_windows,
)
from latentsync.sampling.settings import SamplerSettings
from latentsync.sampling.windows import plan_windows
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support.image_clip import Clip

COUNT, SIDE_PX, RESOLUTION = 40, 96, 64
CUTS = (26,)
FACE = np.array([[36.0, 36], [60, 36], [48, 50]])
TIMELINE = Timeline(Fraction(25), tuple(range(COUNT)))
STATES = torch.randn(2 * COUNT, 5, 384, generator=torch.Generator().manual_seed(1))
AUDIO = AudioFeatures(STATES, Waveform(torch.zeros(1, COUNT * 640), 16000))


class CountingClip(Clip):
    """Records which frames were read."""

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__(frames)
        self.read_frames: list[int] = []

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        for i in indices:
            self.read_frames.append(i)
            yield self.frames[i]


class RecordingUNet:
    """Predicts zero noise, and records the latents that it is called with."""

    def __init__(self) -> None:
        self.latents: list[Tensor] = []

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:
        return [(audio, audio)]

    def __call__(
        self,
        x: Tensor,
        timestep: float,
        audio_kv: AudioKV | None,
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]:
        self.latents.append(x[:, :4])
        return torch.zeros(len(x) * (1 + do_cfg), 4, *x.shape[2:]), torch.zeros(2, 1)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(np.random.default_rng(2).integers(0, 256, (COUNT, SIDE_PX, SIDE_PX, 3), np.uint8))


def track(clip: Clip) -> FaceTrack:
    return FaceTrack(clip, np.tile(FACE, (COUNT, 1, 1)), CUTS, "zero-lag")


def sample(clip: Clip, overlap: int, steps: int = 2) -> list[StepOutput]:
    """Samples one window at a time: a batch of another size sums in another order."""
    settings = SamplerSettings(seed=1, num_inference_steps=steps, guidance_scale=1.0, overlap=overlap)
    networks, limit = (random_init.unet(), random_init.vae()), BatchLimit(1, "the UNet")
    return list(sample_windows(*networks, track(clip), AUDIO, TIMELINE, settings, RESOLUTION, batch_limit=limit))


@pytest.fixture(scope="module")
def overlapping_steps(clip: Clip) -> list[StepOutput]:
    return sample(clip, overlap=4)


def lip_track(steps: Iterable[StepOutput], clip: Clip) -> LipTrack:
    return build_lip_track(steps, track(clip), TIMELINE, AUDIO.waveform, random_init.vae())


def test_sampler_draws_noise_from_settings_seed(clip: Clip) -> None:
    """The run record holds the seed of the settings, so no other noise may be used."""
    unet, settings = RecordingUNet(), SamplerSettings(seed=77, num_inference_steps=1)
    list(sample_windows(unet, random_init.vae(), track(clip), AUDIO, TIMELINE, settings, RESOLUTION))
    noise = sample_noise(77, RESOLUTION)
    assert [latents.shape[2] for latents in unet.latents] == [16, 10, 14]
    assert all(torch.equal(latents, noise.expand_as(latents)) for latents in unet.latents)


def test_sampler_reads_the_next_window_while_the_gpu_computes(clip: Clip) -> None:
    """The first call of the UNet ends only after the frames of the second window are read."""
    was_read = threading.Event()

    class NotingClip(Clip):
        def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
            for i in indices:
                yield self.frames[i]
                if i == CUTS[0] - 1:
                    was_read.set()

    class BusyUNet(RecordingUNet):
        def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            in_time.append(was_read.wait(timeout=60))
            return super().__call__(*args, **kwargs)

    in_time: list[bool] = []
    settings, source = SamplerSettings(num_inference_steps=1), NotingClip(clip.frames)
    list(sample_windows(BusyUNet(), random_init.vae(), track(source), AUDIO, TIMELINE, settings, RESOLUTION))
    assert in_time == [True] * 3


def test_sampler_yields_as_many_steps_as_announced(clip: Clip, overlapping_steps: list[StepOutput]) -> None:
    settings = SamplerSettings(num_inference_steps=2, overlap=4)
    assert num_sampling_steps(track(clip), AUDIO, TIMELINE, settings) == len(overlapping_steps) == 6


def test_sampler_logs_number_of_windows(clip: Clip, caplog: pytest.LogCaptureFixture) -> None:
    settings = SamplerSettings(num_inference_steps=1)
    with caplog.at_level(logging.INFO, "latentsync.sampling.sampler"):
        next(sample_windows(RecordingUNet(), random_init.vae(), track(clip), AUDIO, TIMELINE, settings, RESOLUTION))
    assert caplog.messages == ["Sampling 3 windows of 40 output frames at 64 px"]


def test_sampler_overlap_is_cross_faded(clip: Clip, overlapping_steps: list[StepOutput]) -> None:
    windows = {s.window: s.latents[0].movedim(1, 0) for s in overlapping_steps if s.step == s.num_steps}
    assert list(windows) == [range(16), range(12, 26), range(26, 40)] == plan_windows(track(clip), AUDIO, TIMELINE, 4)
    lips = lip_track(overlapping_steps, clip)
    assert lips.latent_index.tolist() == list(range(COUNT)), "every frame once, in order"
    first, second, third = windows.values()
    assert torch.equal(lips.latents[:12], first[:12].half())
    assert torch.equal(lips.latents[16:26], second[4:].half())
    assert torch.equal(lips.latents[26:], third.half()), "nothing is blended across a cut"
    for i in range(4):
        blend = (first[12 + i] * (4 - i) + second[i] * (1 + i)) / 5
        # half precision, and another order of the same sum
        torch.testing.assert_close(lips.latents[12 + i].float(), blend, rtol=2e-3, atol=2e-3)
        assert not torch.equal(first[12 + i], second[i]), "otherwise this test shows nothing"


def test_sampler_reads_shared_frames_once(clip: Clip) -> None:
    counting_clip = CountingClip(clip.frames)
    sample(counting_clip, overlap=12, steps=1)
    assert counting_clip.read_frames == list(range(COUNT))


class CountingVAE:
    """Counts the images that it encodes. Latents are noise, drawn anew each time."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, images: Tensor) -> Tensor:
        self.encoded.append(len(images))
        return torch.randn(len(images), 4, *(side // 8 for side in images.shape[2:]))

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError


class ConditioningUNet(RecordingUNet):
    """Records the conditioning of each window, and runs out of memory for the audio of more than `max_windows`."""

    def __init__(self, max_windows: int = 9) -> None:
        super().__init__()
        self.max_windows = max_windows
        self.conditioning: list[Tensor] = []

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:
        if len(audio) > self.max_windows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return super().precompute_audio_kv(audio)

    def __call__(self, x: Tensor, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        self.conditioning += x[:, 4:].unbind()
        return super().__call__(x, *given, **named)


def test_sampler_second_run_encodes_nothing(clip: Clip) -> None:
    """Another seed, other audio, another overlap: the same crops in the same frames."""
    source, vae, store = CountingClip(clip.frames), CountingVAE(), ConditioningStore(COUNT, torch.float16)
    unets = [ConditioningUNet(), ConditioningUNet()]
    for seed, unet in enumerate(unets):
        settings = SamplerSettings(seed=seed, num_inference_steps=1, guidance_scale=1.0, overlap=4 * seed)
        list(sample_windows(unet, vae, track(source), AUDIO, TIMELINE, settings, RESOLUTION, store=store))
        assert vae.encoded == [32, 20, 28], "the masked and the whole crop of each frame, in one call a window"
        assert source.read_frames == list(range(COUNT))
    first, second = (unet.conditioning for unet in unets)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[0][:, 12:], second[1][:, :4])
    assert torch.equal(first[1], second[1][:, 4:])


def test_sampler_encodes_a_repeated_frame_once(clip: Clip) -> None:
    vae, unet = CountingVAE(), ConditioningUNet()
    there_and_back = Timeline(Fraction(25), (*range(8), *reversed(range(8))))
    settings = SamplerSettings(num_inference_steps=1, guidance_scale=1.0)
    list(sample_windows(unet, vae, track(clip), AUDIO, there_and_back, settings, RESOLUTION))
    assert vae.encoded == [16]
    assert torch.equal(unet.conditioning[0][:, 8:], unet.conditioning[0][:, :8].flip(1))


PING_PONG = Timeline(Fraction(25), (*range(COUNT), *reversed(range(COUNT)), *range(10)))


@pytest.mark.parametrize("timeline", [TIMELINE, PING_PONG], ids=["forward", "ping-pong"])
@pytest.mark.parametrize("overlap", [0, 4, 12])
def test_workers_prepare_windows_to_the_same_bits(clip: Clip, overlap: int, timeline: Timeline) -> None:
    """Each worker encodes its windows alone, and frames that windows share in the calls of one process."""
    vae, settings = random_init.vae(), SamplerSettings(overlap=overlap)
    features = AudioFeatures(torch.cat([STATES] * 3), Waveform(torch.zeros(1, 3 * COUNT * 640), 16000))
    arguments = track(clip), features, timeline, settings, RESOLUTION
    limit = BatchLimit(2, "the UNet")
    alone = list(prepare_windows(vae, *arguments, ConditioningStore(COUNT, torch.float32), limit))
    windows = list(read_windows(*arguments))
    assert len(alone) == len(windows) > 2
    for expected, window in zip(alone, windows, strict=True):
        prepared = encode_window(window, vae, torch.float32)
        assert prepared.windows == expected.windows
        assert torch.equal(prepared.conditioning, expected.conditioning)
        assert torch.equal(prepared.audio, expected.audio)


def test_workers_windows_read_shared_frames_once(clip: Clip) -> None:
    source = CountingClip(clip.frames)
    windows = read_windows(track(source), AUDIO, TIMELINE, SamplerSettings(overlap=12), RESOLUTION)
    assert max(len(window.crops) for window in windows) <= KEPT_GROUPS
    assert source.read_frames == list(range(COUNT))


def test_sampler_halves_the_windows_when_audio_does_not_fit(clip: Clip) -> None:
    unet, limit = ConditioningUNet(max_windows=2), BatchLimit(4, "the UNet")
    settings = SamplerSettings(num_inference_steps=2, guidance_scale=1.0)
    whole = Timeline(Fraction(25), tuple(range(26)) * 4)
    steps = list(
        sample_windows(unet, CountingVAE(), track(clip), AUDIO, whole, settings, RESOLUTION, batch_limit=limit)
    )
    assert limit.max_batch == 2
    assert [step.window.start for step in steps if step.step == 2] == list(range(0, 104, 16))


def test_sampler_windows_are_independent(clip: Clip, overlapping_steps: list[StepOutput]) -> None:
    steps = sample(clip, overlap=0)
    assert [s.window for s in steps[::2]] == [range(16), range(16, 26), range(26, 40)]
    for i in (1, -1):
        assert torch.equal(steps[i].latents, overlapping_steps[i].latents)


def test_sampler_nan_names_the_frames(clip: Clip, overlapping_steps: list[StepOutput]) -> None:
    steps = [s._replace(latents=s.latents * float("nan")) if 26 in s.window else s for s in overlapping_steps]
    with pytest.raises(WeightsError, match=r"^Frames 26-39: the model produced NaN values\. Set precision to fp32"):
        lip_track(steps, clip)


def test_sampler_without_windows_reports_missing_face(clip: Clip) -> None:
    """Before the sampling, not after it: the face is not there while someone speaks."""
    points = np.tile(FACE, (COUNT, 1, 1)).astype(float)
    points[:20] = np.nan
    speech = replace(AUDIO, is_speech=np.arange(4 * COUNT) < 60)
    sentence = "clip does not show the selected face in any of the 40 output frames that have speech"
    with pytest.raises(FaceError, match=sentence):
        num_sampling_steps(FaceTrack(clip, points, CUTS), speech, TIMELINE, SamplerSettings())
