"""The sampler: what the network is called with and how often, the conditioning's channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync.errors import OutOfMemoryError, UsageError
from latentsync.models.constants import LATENT_SCALE
from latentsync.models.protocols import AudioKV
from latentsync.sampling import denoise
from latentsync.sampling.conditioning import prepare_conditioning, sample_noise
from latentsync.sampling.sampler import clip_limit
from latentsync.sampling.settings import SamplerSettings
from tests.support import tiny_networks


def test_noise_is_torch_randn_of_seed() -> None:
    state = torch.get_rng_state()
    drawn = sample_noise(1247, 256)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1247)
        assert torch.equal(drawn, torch.randn(1, 4, 1, 32, 32))


class Recorder:
    """A denoiser that remembers how it was called.

    It predicts what it was called with: ones, times the first number of the audio that it hears.

    Args:
        holds: more clips than that at once are more than its memory has room for.
    """

    def __init__(self, holds: int = 100) -> None:
        self.holds = holds
        self.whole: list[bool] = []
        self.clips: list[int] = []
        self.heard: list[AudioKV | None] = []

    def precompute_audio_kv(self, audio: torch.Tensor) -> AudioKV:
        return [(audio.flatten(0, 1), audio.flatten(0, 1))]

    def __call__(
        self,
        x: torch.Tensor,
        timestep: float,
        heard: AudioKV | None,
        deep: torch.Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        clips, frames = len(x) * (1 + do_cfg), x.shape[2]
        if clips > self.holds:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 1.00 GiB.")
        self.whole.append(deep is None)
        self.clips.append(clips)
        self.heard.append(heard)
        sound = torch.zeros(0) if heard is None else heard[0][0].unflatten(0, (-1, frames))[:, 0, 0, 0]
        level = torch.cat([torch.zeros(clips - len(sound)), sound])
        state = torch.full((clips * frames, 1), float(timestep)) if deep is None else deep
        return level[:, None, None, None, None] * torch.ones_like(x[:1, :4]), state


def run(
    settings: SamplerSettings, windows: int = 1, unet: Recorder | None = None, most: int = 100
) -> tuple[Recorder, list[torch.Tensor]]:
    unet = unet or Recorder()
    noise, conditioning = tiny_networks.normal(1, 1, 4, 1, 2, 2), tiny_networks.normal(2, windows, 9, 3, 2, 2)
    heard = tiny_networks.normal(3, windows, 3, 50, 384)
    return unet, list(denoise.denoise(unet, noise, conditioning, heard, settings, clip_limit(most)))


def test_denoise_yields_every_step() -> None:
    _, latents = run(SamplerSettings(num_inference_steps=5), windows=2)
    assert [step.shape for step in latents] == [(2, 4, 3, 2, 2)] * 5


@pytest.mark.parametrize(("interval", "whole"), [(1, [True] * 7), (3, [True, False, False, True, False, False, True])])
def test_denoise_deepcache_runs_full_unet_at_interval(interval: int, whole: list[bool]) -> None:
    unet, _ = run(SamplerSettings(num_inference_steps=7, cache_interval=interval))
    assert unet.whole == whole


@pytest.mark.parametrize(("guidance", "clips"), [(1.0, 1), (1.5, 2)])
def test_denoise_cfg_1_runs_one_pass(guidance: float, clips: int) -> None:
    unet, _ = run(SamplerSettings(num_inference_steps=2, guidance_scale=guidance))
    assert unet.clips == [clips] * 2


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_denoise_batch_split_gives_the_same(windows: int, most: int) -> None:
    settings = SamplerSettings(num_inference_steps=4, guidance_scale=2.0, cache_interval=2)
    _, at_once = run(settings, windows)
    _, apart = run(settings, windows, most=most)
    assert all(torch.equal(one, other) for one, other in zip(at_once, apart, strict=True))


@pytest.mark.parametrize(
    ("start", "end", "clips"),
    [
        (0.0, 0.5, [2, 2, 2, 1, 1, 1]),
        (0.5, 1.0, [1, 1, 1, 2, 2, 2]),
        (0.3, 0.8, [1, 1, 2, 2, 2, 1]),
        (0.0, 1.0, [2] * 6),
    ],
)
def test_denoise_cfg_runs_in_its_part_of_the_steps(start: float, end: float, clips: list[int]) -> None:
    unet, _ = run(
        SamplerSettings(
            num_inference_steps=6, guidance_scale=2.0, cache_interval=1, guidance_start=start, guidance_end=end
        )
    )
    assert unet.clips == clips


def test_denoise_step_outside_cfg_part_has_no_cfg() -> None:
    late = {"steps": 4, "step_cache": 1, "guidance_start": 0.5}
    _, do_cfg = run(SamplerSettings(guidance_scale=2.0, **late))
    _, never = run(SamplerSettings(guidance_scale=1.0, **late))
    assert [torch.equal(one, other) for one, other in zip(do_cfg, never, strict=True)] == [True, True, False, False]


def test_denoise_deepcache_follows_end_of_cfg() -> None:
    share = {"guidance_start": 0.25, "guidance_end": 0.625}
    unet, _ = run(SamplerSettings(num_inference_steps=8, guidance_scale=2.0, cache_interval=4, **share))
    assert unet.clips == [1, 1, 2, 2, 2, 1, 1, 1]
    assert unet.whole == [True, False, True, False, True, False, False, False]


class Halves(Recorder):
    """It also remembers what it carried over, which tells the half without audio from the half with it."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[list[float] | None] = []

    def __call__(
        self,
        x: torch.Tensor,
        timestep: float,
        heard: AudioKV | None,
        deep: torch.Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.carried.append(None if deep is None else deep.flatten().tolist())
        predicted, _ = super().__call__(x, timestep, heard, deep, do_cfg=do_cfg)
        clips = len(x) * (1 + do_cfg)
        return predicted, torch.arange(float(clips)).repeat_interleave(x.shape[2])[:, None] + 10 * (not do_cfg)


def test_denoise_deepcache_keeps_conditional_half() -> None:
    unet = Halves()
    run(SamplerSettings(num_inference_steps=4, guidance_scale=2.0, cache_interval=4, guidance_end=0.5), unet=unet)
    assert unet.carried == [None, [0] * 3 + [1] * 3, [1] * 3, [10] * 3]


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_denoise_cfg_part_must_be_valid(start: float, end: float) -> None:
    with pytest.raises(UsageError, match="guidance_start must be less than guidance_end"):
        SamplerSettings(guidance_start=start, guidance_end=end)


def test_denoise_cfg_in_no_step_is_refused() -> None:
    with pytest.raises(UsageError, match=r"0\.4 to 0\.45 holds none of 3 steps: widen it"):
        SamplerSettings(num_inference_steps=3, guidance_start=0.4, guidance_end=0.45)
    assert not SamplerSettings(
        num_inference_steps=3, guidance_scale=1.0, guidance_start=0.4, guidance_end=0.45
    ).guided_steps


def test_denoise_cfg_unconditional_half_is_first() -> None:
    unet, _ = run(SamplerSettings(num_inference_steps=1, guidance_scale=2.0), most=1)
    silent, heard = unet.heard
    assert silent is None
    assert heard is not None


@pytest.mark.parametrize(("holds", "clips"), [(1, [1] * 8), (2, [2, 2] * 2)])
def test_denoise_oom_halves_the_batch(holds: int, clips: list[int]) -> None:
    settings = SamplerSettings(num_inference_steps=2, guidance_scale=2.0)
    _, expected = run(settings, windows=2)
    unet, latents = run(settings, windows=2, unet=Recorder(holds), most=4)
    assert unet.clips == clips
    assert torch.equal(latents[-1], expected[-1])


def test_denoise_oom_at_batch_1_is_one_sentence() -> None:
    with pytest.raises(OutOfMemoryError, match=r"^Out of memory in the UNet, even at batch size 1\. Close other"):
        run(SamplerSettings(num_inference_steps=2), unet=Recorder(holds=0))


def test_denoise_latents_keep_dtype_of_noise() -> None:
    noise = tiny_networks.normal(1, 1, 4, 1, 2, 2)
    conditioning = tiny_networks.normal(2, 1, 9, 3, 2, 2).half()
    heard = tiny_networks.normal(3, 1, 3, 50, 384).half()
    settings = SamplerSettings(num_inference_steps=2)
    *_, latents = denoise.denoise(Recorder(), noise, conditioning, heard, settings, clip_limit(2))
    assert latents.dtype == torch.float32


class Averages:
    """A codec whose latents are means of 8 x 8 pixels."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool2d(images, 8)
        return torch.cat([means, means[:, :1]], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_conditioning_is_mask_masked_reference() -> None:
    crops = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
    keep = torch.zeros(16, 16)
    keep[:8] = 1
    conditioning = prepare_conditioning(crops, keep, Averages())
    assert conditioning.shape == (1, 9, 2, 2, 2)
    mask, masked, reference = conditioning[0].split([1, 4, 4])
    assert mask.tolist() == [[[[1, 1], [0, 0]]] * 2]
    assert torch.equal(masked[:, :, 0], reference[:, :, 0])
    assert not masked[:, :, 1].any()
    torch.testing.assert_close(reference.transpose(0, 1), Averages().encode(crops / 127.5 - 1) * LATENT_SCALE)
