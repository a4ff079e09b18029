"""Schedulers: DDIM equals diffusers, and the others solve equations with a known solution."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from latentsync.errors import UsageError
from latentsync.models import protocols
from latentsync.models.protocols import AudioKV
from latentsync.sampling import denoise, schedulers
from latentsync.sampling.sampler import clip_limit
from latentsync.sampling.settings import SamplerSettings, SchedulerName
from tests.support import tiny_networks

SCHEDULERS = get_args(SchedulerName)
NEW = [scheduler for scheduler in SCHEDULERS if scheduler != "ddim"]
MEAN, SPREAD = 0.4, 1.0  # of the latents that `Gaussian` was "trained" on


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 999])
def test_scheduler_ddim_equals_diffusers(steps: int) -> None:
    from diffusers import DDIMScheduler

    low, high = schedulers.BETAS
    reference = DDIMScheduler(
        beta_start=low,
        beta_end=high,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    reference.set_timesteps(steps)
    ours = theirs = tiny_networks.normal(1, 1, 4, 2, 3, 3)
    plan = schedulers.schedule(steps)
    assert [timestep for timestep, _, _ in plan] == reference.timesteps.tolist()
    for step, (timestep, alpha, alpha_next) in enumerate(plan):
        predicted = tiny_networks.normal(step + 2, 1, 4, 2, 3, 3)
        ours = schedulers.ddim_step(ours, predicted, alpha, alpha_next)
        theirs = reference.step(predicted, timestep, theirs).prev_sample
    # float32 arithmetic of the same formula in another order, carried through all steps
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_scheduler_1000_steps_stay_in_table() -> None:
    timesteps = [timestep for timestep, _, _ in schedulers.schedule(1000)]
    assert max(timesteps) == 999
    assert min(timesteps) == 1


class Gaussian:
    """The very noise that is in latents of pictures drawn from a normal distribution, each value apart.

    Its equation has a known solution: however latents are taken from one level of noise to another, they stay as far
    from the mean, in standard deviations of their level.
    """

    def __init__(self, spread: float = SPREAD) -> None:
        self.spread = spread
        self.alphas = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0)

    def alpha(self, timestep: float) -> float:
        """The share of signal; between two timesteps, as what lies between two steps is asked for."""
        low = int(timestep)
        between = self.alphas[low : low + 2].log()
        return float(torch.lerp(between[0], between[-1], timestep - low).exp())

    def exact(self, x: Tensor, start: float, end: float) -> Tensor:
        """Latents of signal share `start`, moved to signal share `end`."""
        deviations = (x - start**0.5 * MEAN) / (start * self.spread**2 + 1 - start) ** 0.5
        return end**0.5 * MEAN + (end * self.spread**2 + 1 - end) ** 0.5 * deviations

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:
        return [(audio, audio)]

    def __call__(
        self, x: Tensor, timestep: float, heard: AudioKV | None, deep: Tensor | None = None, *, do_cfg: bool = False
    ) -> tuple[Tensor, Tensor]:
        alpha = self.alpha(timestep)
        variance = alpha * self.spread**2 + 1 - alpha
        noise = (1 - alpha) ** 0.5 * (x[:, :4] - alpha**0.5 * MEAN) / variance
        return noise, torch.zeros(1)


def solved(scheduler: SchedulerName, steps: int, noise: Tensor, unet: protocols.Denoiser, windows: int = 1) -> Tensor:
    settings = SamplerSettings(num_inference_steps=steps, guidance_scale=1.0, cache_interval=1, scheduler=scheduler)
    conditioning = torch.zeros(windows, 9, 1, *noise.shape[-2:])
    *_, latents = denoise.denoise(unet, noise, conditioning, torch.zeros(windows, 1, 50, 384), settings, clip_limit(8))
    return latents


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return tiny_networks.normal(5, 1, 4, 1, 8, 8)


@pytest.mark.parametrize("scheduler", NEW)
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 20, 1000])
def test_scheduler_finds_single_image_in_any_steps(scheduler: SchedulerName, steps: int, noise: Tensor) -> None:
    made = solved(scheduler, steps, noise, Gaussian(spread=0.0))
    # float32 sums of up to a thousand steps
    torch.testing.assert_close(made, torch.full_like(made, MEAN), rtol=0, atol=2e-3)


def error(scheduler: SchedulerName, steps: int, noise: Tensor) -> float:
    """The largest difference from the known solution."""
    unet, solving = Gaussian(), schedulers.make_scheduler(scheduler, steps)
    begun = solving.scaled(solving.start(noise), 0)
    end = unet.alpha(0) if scheduler == "ddim" else 1.0
    exact = unet.exact(begun, unet.alpha(solving.timesteps[0]), end)
    return float((solved(scheduler, steps, noise, unet) - exact).abs().max())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_scheduler_error_falls_with_more_steps(scheduler: SchedulerName, noise: Tensor) -> None:
    errors = [error(scheduler, steps, noise) for steps in (5, 20, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.06  # first order's falls as the steps grow, from 0.8 at 5 of them; 0.052 seen


@pytest.mark.parametrize("scheduler", ["dpm++ 2m", "unipc"])
@pytest.mark.parametrize("first_order", ["ddim", "euler"])
def test_scheduler_second_order_needs_half_the_steps(
    scheduler: SchedulerName, first_order: SchedulerName, noise: Tensor
) -> None:
    assert error(scheduler, 10, noise) < error(first_order, 20, noise)


@pytest.mark.parametrize("scheduler", NEW)
@pytest.mark.parametrize("steps", [1, 2, 10, 61, 999, 1000])
def test_scheduler_timesteps_fall_and_are_in_table(scheduler: SchedulerName, steps: int) -> None:
    found = schedulers.make_scheduler(scheduler, steps).timesteps
    assert len(found) == steps
    assert list(found) == sorted(set(found), reverse=True)
    assert 0 <= found[-1] <= found[0] < schedulers.TRAIN_STEPS


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_scheduler_windows_are_independent(scheduler: SchedulerName, noise: Tensor) -> None:
    alone = solved(scheduler, 6, noise, Gaussian())
    solved(scheduler, 4, -noise, Gaussian())
    assert torch.equal(solved(scheduler, 6, noise, Gaussian()), alone)
    together = solved(scheduler, 6, noise, Gaussian(), windows=2)
    assert torch.equal(together, alone.expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scheduler_latents_keep_dtype_of_noise(scheduler: SchedulerName, dtype: torch.dtype, noise: Tensor) -> None:
    solving = schedulers.make_scheduler(scheduler, 3)
    latents = solving.start(noise.to(dtype))
    for step in range(3):
        latents = solving.step(solving.scaled(latents, step), latents, step)
        assert latents.dtype == dtype


def test_scheduler_unknown_name_lists_all() -> None:
    with pytest.raises(UsageError, match=r"scheduler must be one of ddim, dpm\+\+ 2m, euler, unipc, not 'lcm'"):
        SamplerSettings(scheduler="lcm")  # pyright: ignore[reportArgumentType] - what a caller without types may give
    with pytest.raises(UsageError, match="scheduler must be one of"):
        schedulers.make_scheduler("lcm", 3)  # pyright: ignore[reportArgumentType]
