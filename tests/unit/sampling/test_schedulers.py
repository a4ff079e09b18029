"""Schedulers: DDIM equals diffusers', and all of them solve equations with a known solution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentsync.models.protocols import AudioKV, Denoiser
from latentsync.oom import BatchLimit
from latentsync.sampling.denoise import denoise
from latentsync.sampling.schedulers import BETAS, DDIM, SCHEDULERS, TRAIN_STEPS
from latentsync.sampling.settings import SamplerSettings
from tests.support import tiny_networks

DIFFUSERS_NAMES = [name for name in SCHEDULERS if name != "ddim"]
MEAN, SPREAD = 0.4, 1.0  # of the latents that `GaussianUNet` was "trained" on


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 999])
def test_scheduler_ddim_equals_diffusers(steps: int) -> None:
    from diffusers import DDIMScheduler

    low, high = BETAS
    reference = DDIMScheduler(
        beta_start=low,
        beta_end=high,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    reference.set_timesteps(steps)
    scheduler = DDIM(steps)
    assert scheduler.timesteps == reference.timesteps.tolist()
    ours = theirs = tiny_networks.normal(1, 1, 4, 2, 3, 3)
    for step, timestep in enumerate(reference.timesteps):
        noise_pred = tiny_networks.normal(step + 2, 1, 4, 2, 3, 3)
        ours = scheduler.step(ours, noise_pred, step)
        theirs = reference.step(noise_pred, timestep, theirs).prev_sample
    # float32 arithmetic of the same formula in another order, accumulated over all steps
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_scheduler_ddim_1000_steps_stay_in_table() -> None:
    timesteps = DDIM(1000).timesteps
    assert max(timesteps) == 999
    assert min(timesteps) == 1


class GaussianUNet:
    """The exact noise predictor for latents with independent, normally distributed values.

    The solution of its differential equation is known: between two noise levels, each latent keeps its distance from
    the mean, measured in standard deviations of the level.
    """

    def __init__(self, spread: float = SPREAD) -> None:
        self.spread = spread
        self.alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0)

    def alpha(self, timestep: float) -> float:
        """The share of signal, interpolated between timesteps: some schedulers use fractional ones."""
        index = int(timestep)
        logs = self.alphas[index : index + 2].log()
        return float(torch.lerp(logs[0], logs[-1], timestep - index).exp())

    def exact(self, x: Tensor, start: float, end: float) -> Tensor:
        """The solution at signal share `end`, from latents `x` at signal share `start`."""
        deviations = (x - start**0.5 * MEAN) / (start * self.spread**2 + 1 - start) ** 0.5
        return end**0.5 * MEAN + (end * self.spread**2 + 1 - end) ** 0.5 * deviations

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
        alpha = self.alpha(timestep)
        variance = alpha * self.spread**2 + 1 - alpha
        noise_pred = (1 - alpha) ** 0.5 * (x[:, :4] - alpha**0.5 * MEAN) / variance
        return noise_pred, torch.zeros(1)


def solve(name: str, steps: int, noise: Tensor, unet: Denoiser, windows: int = 1) -> Tensor:
    settings = SamplerSettings(num_inference_steps=steps, guidance_scale=1.0, cache_interval=1, scheduler=name)
    conditioning, audio = torch.zeros(windows, 9, 1, *noise.shape[-2:]), torch.zeros(windows, 1, 50, 384)
    *_, latents = denoise(unet, noise, conditioning, audio, settings, BatchLimit(8, "the UNet"))
    return latents


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return tiny_networks.normal(5, 1, 4, 1, 8, 8)


@pytest.mark.parametrize("name", DIFFUSERS_NAMES)  # DDIM ends with some noise
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 20, 1000])
def test_scheduler_finds_single_image_in_any_steps(name: str, steps: int, noise: Tensor) -> None:
    latents = solve(name, steps, noise, GaussianUNet(spread=0.0))
    # float32 sums of up to a thousand steps
    torch.testing.assert_close(latents, torch.full_like(latents, MEAN), rtol=0, atol=2e-3)


def max_error(name: str, steps: int, noise: Tensor) -> float:
    """The largest difference from the known solution."""
    unet, scheduler = GaussianUNet(), SCHEDULERS[name](steps)
    start = scheduler.scale_model_input(scheduler.scale_noise(noise), 0)
    end_alpha = unet.alpha(0) if name == "ddim" else 1.0
    exact = unet.exact(start, unet.alpha(scheduler.timesteps[0]), end_alpha)
    return float((solve(name, steps, noise, unet) - exact).abs().max())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_error_falls_with_more_steps(name: str, noise: Tensor) -> None:
    errors = [max_error(name, steps, noise) for steps in (5, 20, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.06  # first-order schedulers fall from 0.8 at 5 steps to 0.052


@pytest.mark.parametrize("second_order", ["dpmpp_2m", "uni_pc"])
@pytest.mark.parametrize("first_order", ["ddim", "euler"])
def test_scheduler_second_order_needs_half_the_steps(second_order: str, first_order: str, noise: Tensor) -> None:
    assert max_error(second_order, 10, noise) < max_error(first_order, 20, noise)


@pytest.mark.parametrize("name", DIFFUSERS_NAMES)  # DDIM repeats the first of 1000 timesteps
@pytest.mark.parametrize("steps", [1, 2, 10, 61, 999, 1000])
def test_scheduler_timesteps_fall_and_are_in_table(name: str, steps: int) -> None:
    timesteps = list(SCHEDULERS[name](steps).timesteps)
    assert len(timesteps) == steps
    assert timesteps == sorted(set(timesteps), reverse=True)
    assert 0 <= timesteps[-1] <= timesteps[0] < TRAIN_STEPS


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_windows_are_independent(name: str, noise: Tensor) -> None:
    alone = solve(name, 6, noise, GaussianUNet())
    solve(name, 4, -noise, GaussianUNet())
    assert torch.equal(solve(name, 6, noise, GaussianUNet()), alone)
    together = solve(name, 6, noise, GaussianUNet(), windows=2)
    assert torch.equal(together, alone.expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scheduler_latents_keep_dtype_of_noise(name: str, dtype: torch.dtype, noise: Tensor) -> None:
    scheduler = SCHEDULERS[name](3)
    latents = scheduler.scale_noise(noise.to(dtype))
    for step in range(3):
        latents = scheduler.step(scheduler.scale_model_input(latents, step), latents, step)
        assert latents.dtype == dtype
