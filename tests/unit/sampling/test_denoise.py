"""The denoising loop: what it calls the UNet with, and how often."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentsync.errors import OutOfMemoryError
from latentsync.models.protocols import AudioKV
from latentsync.oom import BatchLimit
from latentsync.sampling.denoise import denoise
from latentsync.sampling.settings import SamplerSettings
from tests.support import tiny_networks

FRAMES = 3


class RecordingUNet:
    """Records its calls. It predicts the first value of each window's audio everywhere, and 0 without audio.

    Args:
        memory: batch size above which it runs out of memory.
    """

    def __init__(self, memory: int = 100) -> None:
        self.memory = memory
        self.batches: list[int] = []
        self.audio_kvs: list[AudioKV | None] = []
        self.features: list[list[float] | None] = []  # cached features of each call; None for a full pass

    @property
    def full_passes(self) -> list[bool]:
        return [features is None for features in self.features]

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:
        return [(audio.flatten(0, 1), audio.flatten(0, 1))]

    def __call__(
        self,
        x: Tensor,
        timestep: float,
        audio_kv: AudioKV | None,
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]:
        batch, frames = len(x) * (1 + do_cfg), x.shape[2]
        if batch > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        self.batches.append(batch)
        self.audio_kvs.append(audio_kv)
        self.features.append(None if cached_features is None else cached_features.flatten().tolist())
        audio = torch.zeros(0) if audio_kv is None else audio_kv[0][0].unflatten(0, (-1, frames))[:, 0, 0, 0]
        values = torch.cat([torch.zeros(batch - len(audio)), audio])
        if cached_features is None:
            cached_features = torch.full((batch * frames, 1), float(timestep))
        return values[:, None, None, None, None] * torch.ones_like(x[:1, :4]), cached_features


def run(
    settings: SamplerSettings, windows: int = 1, unet: RecordingUNet | None = None, max_batch: int = 100
) -> tuple[RecordingUNet, list[Tensor]]:
    unet = unet or RecordingUNet()
    noise, conditioning = tiny_networks.normal(1, 1, 4, 1, 2, 2), tiny_networks.normal(2, windows, 9, FRAMES, 2, 2)
    audio = tiny_networks.normal(3, windows, FRAMES, 50, 384)
    return unet, list(denoise(unet, noise, conditioning, audio, settings, BatchLimit(max_batch, "the UNet")))


def test_denoise_yields_every_step() -> None:
    _, latents = run(SamplerSettings(num_inference_steps=5), windows=2)
    assert [step.shape for step in latents] == [(2, 4, FRAMES, 2, 2)] * 5


@pytest.mark.parametrize(("interval", "full"), [(1, [True] * 7), (3, [True, False, False, True, False, False, True])])
def test_denoise_deepcache_runs_full_unet_at_interval(interval: int, full: list[bool]) -> None:
    unet, _ = run(SamplerSettings(num_inference_steps=7, cache_interval=interval))
    assert unet.full_passes == full


@pytest.mark.parametrize(("guidance_scale", "batch"), [(1.0, 1), (1.5, 2)])
def test_denoise_cfg_1_runs_one_pass(guidance_scale: float, batch: int) -> None:
    unet, _ = run(SamplerSettings(num_inference_steps=2, guidance_scale=guidance_scale))
    assert unet.batches == [batch] * 2


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("max_batch", [1, 2, 4])
def test_denoise_batch_split_gives_the_same(windows: int, max_batch: int) -> None:
    settings = SamplerSettings(num_inference_steps=4, guidance_scale=2.0, cache_interval=2)
    _, expected = run(settings, windows)
    _, split = run(settings, windows, max_batch=max_batch)
    assert all(torch.equal(*steps) for steps in zip(expected, split, strict=True))


@pytest.mark.parametrize(
    ("start", "end", "batches"),
    [
        (0.0, 0.5, [2, 2, 2, 1, 1, 1]),
        (0.5, 1.0, [1, 1, 1, 2, 2, 2]),
        (0.3, 0.8, [1, 1, 2, 2, 2, 1]),
        (0.0, 1.0, [2] * 6),
    ],
)
def test_denoise_cfg_runs_in_its_part_of_the_steps(start: float, end: float, batches: list[int]) -> None:
    unet, _ = run(
        SamplerSettings(
            num_inference_steps=6, guidance_scale=2.0, cache_interval=1, guidance_start=start, guidance_end=end
        )
    )
    assert unet.batches == batches


@pytest.mark.parametrize(
    ("speed", "full", "shallow"), [("exact", 40, 0), ("balanced", 14, 26), ("fast", 5, 8)], ids=str
)
def test_denoise_speed_runs_as_many_passes_as_documented(speed: str, full: int, shallow: int) -> None:
    """`fast` has at most 40 % of the work of `balanced`: a shallow pass takes a twelfth of a full one, or less."""
    unet, _ = run(SamplerSettings().at_speed(speed))
    passes = [
        sum(b for b, is_full in zip(unet.batches, unet.full_passes, strict=True) if is_full == kind)
        for kind in (True, False)
    ]
    assert passes == [full, shallow]
    assert speed != "fast" or full + shallow / 12 <= 0.4 * (14 + 26 / 12)


def test_denoise_step_outside_cfg_part_has_no_cfg() -> None:
    _, guided = run(SamplerSettings(num_inference_steps=4, cache_interval=1, guidance_scale=2.0, guidance_start=0.5))
    _, unguided = run(SamplerSettings(num_inference_steps=4, cache_interval=1, guidance_scale=1.0))
    assert [torch.equal(*steps) for steps in zip(guided, unguided, strict=True)] == [True, True, False, False]


def test_denoise_deepcache_follows_end_of_cfg() -> None:
    unet, _ = run(
        SamplerSettings(
            num_inference_steps=8, guidance_scale=2.0, cache_interval=4, guidance_start=0.25, guidance_end=0.625
        )
    )
    assert unet.batches == [1, 1, 2, 2, 2, 1, 1, 1]
    assert unet.full_passes == [True, False, True, False, True, False, False, False]


class NumberingUNet(RecordingUNet):
    """Returns features that number the samples of the batch, from 10 without guidance."""

    def __call__(
        self,
        x: Tensor,
        timestep: float,
        audio_kv: AudioKV | None,
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]:
        noise_pred, _ = super().__call__(x, timestep, audio_kv, cached_features, do_cfg=do_cfg)
        numbers = torch.arange(float(len(noise_pred))) + 10 * (not do_cfg)
        return noise_pred, numbers.repeat_interleave(x.shape[2])[:, None]


def test_denoise_deepcache_keeps_conditional_half() -> None:
    settings = SamplerSettings(num_inference_steps=4, guidance_scale=2.0, cache_interval=4, guidance_end=0.5)
    unet, _ = run(settings, unet=NumberingUNet())
    assert unet.features == [None, [0] * FRAMES + [1] * FRAMES, [1] * FRAMES, [10] * FRAMES]


def test_denoise_cfg_unconditional_half_is_first() -> None:
    unet, _ = run(SamplerSettings(num_inference_steps=1, guidance_scale=2.0), max_batch=1)
    uncond, cond = unet.audio_kvs
    assert uncond is None
    assert cond is not None


@pytest.mark.parametrize(("memory", "batches"), [(1, [1] * 8), (2, [2, 2] * 2)])
def test_denoise_oom_halves_the_batch(memory: int, batches: list[int]) -> None:
    settings = SamplerSettings(num_inference_steps=2, guidance_scale=2.0)
    _, expected = run(settings, windows=2)
    unet, latents = run(settings, windows=2, unet=RecordingUNet(memory), max_batch=4)
    assert unet.batches == batches
    assert torch.equal(latents[-1], expected[-1])


def test_denoise_oom_at_batch_1_is_an_error() -> None:
    with pytest.raises(OutOfMemoryError, match=r"^Out of memory in the UNet, even at batch size 1 .*\. Close other"):
        run(SamplerSettings(num_inference_steps=2), unet=RecordingUNet(memory=0))


def test_denoise_latents_keep_dtype_of_noise() -> None:
    noise = tiny_networks.normal(1, 1, 4, 1, 2, 2)
    conditioning = tiny_networks.normal(2, 1, 9, FRAMES, 2, 2).half()
    audio = tiny_networks.normal(3, 1, FRAMES, 50, 384).half()
    settings = SamplerSettings(num_inference_steps=2)
    *_, latents = denoise(RecordingUNet(), noise, conditioning, audio, settings, BatchLimit(2, "the UNet"))
    assert latents.dtype == torch.float32
