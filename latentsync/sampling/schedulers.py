"""Schedulers, which use the predicted noise to turn noise into the latents of an image, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import cannot_import

TRAIN_STEPS = 1000
BETAS = (0.00085, 0.012)  # Stable Diffusion 1.x: linear in the square root


class Scheduler(Protocol):
    """Samples one batch of windows. Use a new scheduler for each batch, because a scheduler may keep state between
    steps.

    The first step has the number 0.

    timesteps: the timestep of each step, in [0, TRAIN_STEPS), decreasing.
    """

    timesteps: Sequence[float]

    def scale_noise(self, noise: Tensor) -> Tensor:
        """The initial latents from noise of unit variance."""
        ...

    def scale_model_input(self, latents: Tensor, step: int) -> Tensor:
        """The latents, scaled for the input of the UNet."""
        ...

    def step(self, latents: Tensor, noise_pred: Tensor, step: int) -> Tensor:
        """The latents after a step, from the noise that the UNet predicted.

        The dtype of the latents does not change.
        """
        ...


class DDIM:
    """DDIM with eta 0 (arXiv 2010.02502), as in the official code."""

    def __init__(self, num_inference_steps: int) -> None:
        self._schedule = ddim_schedule(num_inference_steps)
        self.timesteps: Sequence[float] = [timestep for timestep, _, _ in self._schedule]

    def scale_noise(self, noise: Tensor) -> Tensor:
        return noise

    def scale_model_input(self, latents: Tensor, step: int) -> Tensor:  # noqa: ARG002 - the UNet takes DDIM's latents
        return latents

    def step(self, latents: Tensor, noise_pred: Tensor, step: int) -> Tensor:
        _, alpha, next_alpha = self._schedule[step]
        clean = (latents - (1 - alpha) ** 0.5 * noise_pred) / alpha**0.5
        return next_alpha**0.5 * clean + (1 - next_alpha) ** 0.5 * noise_pred


def alphas_cumprod() -> Tensor:
    """The share of signal in the variance at each timestep of training: float32 (1000,)."""
    low, high = BETAS
    betas = torch.linspace(low**0.5, high**0.5, TRAIN_STEPS) ** 2
    return torch.cumprod(1 - betas, dim=0)


def ddim_schedule(num_inference_steps: int) -> list[tuple[int, float, float]]:
    """For each step: the timestep, its cumulative alpha, and the cumulative alpha of the next step.

    "Leading" spacing with an offset of 1. The last step ends at the first alpha of training, not at 1.
    """
    alphas = alphas_cumprod().tolist()
    stride = TRAIN_STEPS // num_inference_steps
    # at 1000 steps, the offset would put the first timestep outside the table
    timesteps = [min(i * stride + 1, TRAIN_STEPS - 1) for i in reversed(range(num_inference_steps))]
    return [(t, alphas[t], alphas[max(t - stride, 0)]) for t in timesteps]


class DiffusersScheduler:
    """A diffusers scheduler with the noise schedule of Stable Diffusion 1.x, which ends at zero noise.

    Args:
        name: name of the class in diffusers.
        num_inference_steps: 1 to 1000.
        options: further arguments of that class.

    Raises:
        DependencyError: diffusers cannot be imported.
    """

    def __init__(self, name: str, num_inference_steps: int, **options: object) -> None:
        try:
            import diffusers

            scheduler_class = getattr(diffusers, name)
        except ImportError as error:
            raise cannot_import("diffusers", "diffusers>=0.32", error, "choose the sampler ddim") from error
        self._scheduler: Any = scheduler_class(
            num_train_timesteps=TRAIN_STEPS,
            beta_start=BETAS[0],
            beta_end=BETAS[1],
            beta_schedule="scaled_linear",
            prediction_type="epsilon",
            steps_offset=1,
            # linspace starts a single Euler step without noise, and repeats a noise level among 1000
            timestep_spacing="linspace" if 1 < num_inference_steps < TRAIN_STEPS else "trailing",
            **options,
        )
        self._scheduler.set_timesteps(num_inference_steps)
        self.timesteps: Sequence[float] = self._scheduler.timesteps.tolist()

    def scale_noise(self, noise: Tensor) -> Tensor:
        return noise * self._scheduler.init_noise_sigma

    def scale_model_input(self, latents: Tensor, step: int) -> Tensor:
        return self._scheduler.scale_model_input(latents, self._scheduler.timesteps[step])

    def step(self, latents: Tensor, noise_pred: Tensor, step: int) -> Tensor:
        return self._scheduler.step(noise_pred, self._scheduler.timesteps[step], latents).prev_sample


SCHEDULERS: Mapping[str, Callable[[int], Scheduler]] = {
    "ddim": DDIM,
    "dpmpp_2m": partial(  # arXiv 2211.01095
        DiffusersScheduler,
        "DPMSolverMultistepScheduler",
        algorithm_type="dpmsolver++",
        solver_order=2,
    ),
    "euler": partial(  # arXiv 2206.00364
        DiffusersScheduler, "EulerDiscreteScheduler"
    ),
    "uni_pc": partial(  # arXiv 2302.04867
        DiffusersScheduler, "UniPCMultistepScheduler", solver_order=2
    ),
}
"""Name of a sampler -> function that takes the number of steps. To add a sampler, add a row."""
