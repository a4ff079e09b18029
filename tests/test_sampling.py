"""The sampler: DDIM as diffusers computes it, the conditioning's channels, the step cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync import sampling
from latentsync.spec import LATENT_SCALE
from latentsync.types import SamplerSettings
from tests import parity


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 999])
def test_ddim_is_diffusers_ddim(steps: int) -> None:
    from diffusers import DDIMScheduler

    low, high = sampling.BETAS
    reference = DDIMScheduler(
        beta_start=low,
        beta_end=high,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    reference.set_timesteps(steps)
    ours = theirs = parity.normal(1, 1, 4, 2, 3, 3)
    plan = sampling.schedule(steps)
    assert [timestep for timestep, _, _ in plan] == reference.timesteps.tolist()
    for step, (timestep, alpha, alpha_next) in enumerate(plan):
        predicted = parity.normal(step + 2, 1, 4, 2, 3, 3)
        ours = sampling.ddim_step(ours, predicted, alpha, alpha_next)
        theirs = reference.step(predicted, timestep, theirs).prev_sample
    # float32 arithmetic of the same formula in another order, carried through all steps
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_thousand_steps_stay_in_the_table() -> None:
    timesteps = [timestep for timestep, _, _ in sampling.schedule(1000)]
    assert max(timesteps) == 999
    assert min(timesteps) == 1


def test_noise_is_torchs_for_the_seed() -> None:
    state = torch.get_rng_state()
    drawn = sampling.draw_noise(1247, 256)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1247)
        assert torch.equal(drawn, torch.randn(1, 4, 1, 32, 32))


class Recorder:
    """A denoiser that predicts a constant and remembers how it was called."""

    def __init__(self) -> None:
        self.whole: list[bool] = []
        self.batches: list[int] = []
        self.audio: list[torch.Tensor] = []

    def __call__(
        self, x: torch.Tensor, timestep: int, audio: torch.Tensor, deep: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.whole.append(deep is None)
        self.batches.append(len(x))
        self.audio.append(audio)
        return torch.ones_like(x[:, :4]), torch.zeros(1)


def run(settings: SamplerSettings) -> tuple[Recorder, list[torch.Tensor]]:
    unet = Recorder()
    noise, conditioning = parity.normal(1, 1, 4, 1, 2, 2), parity.normal(2, 1, 9, 3, 2, 2)
    return unet, list(sampling.denoise(unet, noise, conditioning, parity.normal(3, 1, 3, 50, 384), settings))


def test_every_step_is_yielded() -> None:
    _, latents = run(SamplerSettings(steps=5))
    assert [step.shape for step in latents] == [(1, 4, 3, 2, 2)] * 5


@pytest.mark.parametrize(("interval", "whole"), [(1, [True] * 7), (3, [True, False, False, True, False, False, True])])
def test_the_whole_network_runs_at_the_interval(interval: int, whole: list[bool]) -> None:
    unet, _ = run(SamplerSettings(steps=7, step_cache=interval))
    assert unet.whole == whole


@pytest.mark.parametrize(("guidance", "batch"), [(1.0, 1), (1.5, 2)])
def test_guidance_of_one_runs_once(guidance: float, batch: int) -> None:
    unet, _ = run(SamplerSettings(steps=2, guidance=guidance))
    assert unet.batches == [batch] * 2


def test_guidance_hears_silence_first() -> None:
    unet, _ = run(SamplerSettings(steps=1, guidance=2.0))
    silent, heard = unet.audio[0]
    assert not silent.any()
    assert heard.any()


def test_latents_keep_the_precision_of_the_noise() -> None:
    noise = parity.normal(1, 1, 4, 1, 2, 2)
    conditioning = parity.normal(2, 1, 9, 3, 2, 2).half()
    heard = parity.normal(3, 1, 3, 50, 384).half()
    *_, latents = sampling.denoise(Recorder(), noise, conditioning, heard, SamplerSettings(steps=2))
    assert latents.dtype == torch.float32


class Averages:
    """A codec whose latents are means of 8 x 8 pixels."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool2d(images, 8)
        return torch.cat([means, means[:, :1]], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_conditioning_is_mask_then_masked_then_reference() -> None:
    crops = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
    keep = torch.zeros(16, 16)
    keep[:8] = 1
    conditioning = sampling.condition(crops, keep, Averages())
    assert conditioning.shape == (1, 9, 2, 2, 2)
    mask, masked, reference = conditioning[0].split([1, 4, 4])
    assert mask.tolist() == [[[[1, 1], [0, 0]]] * 2]
    assert torch.equal(masked[:, :, 0], reference[:, :, 0])
    assert not masked[:, :, 1].any()
    torch.testing.assert_close(reference.transpose(0, 1), Averages().encode(crops / 127.5 - 1) * LATENT_SCALE)
