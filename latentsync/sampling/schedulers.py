"""Solvers: how the predicted noise takes the latents from noise to a picture, one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, get_args

import torch
from torch import Tensor

from ..errors import cannot_import, check_choice
from .settings import SchedulerName

TRAIN_STEPS = 1000


BETAS = (0.00085, 0.012)  # Stable Diffusion 1.x: linear in the square root


class Scheduler(Protocol):
    """Solves one batch of windows, once: it may remember what it has seen. Steps are counted from 0.

    timesteps: per step, where in the noise's schedule the network is asked; in [0, TRAIN_STEPS), falling.
    """

    timesteps: Sequence[float]

    def start(self, noise: Tensor) -> Tensor:
        """The latents to begin with, of noise with a variance of one."""
        ...

    def scaled(self, latents: Tensor, step: int) -> Tensor:
        """The latents as the network is to see them."""
        ...

    def step(self, latents: Tensor, predicted: Tensor, step: int) -> Tensor:
        """The latents after a step, given the noise that the network predicts in them; their dtype stays."""
        ...


def make_scheduler(scheduler: SchedulerName, steps: int) -> Scheduler:
    """A new solver that takes so many steps, 1 to 1000.

    Raises:
        UsageError: no such scheduler.
    """
    check_choice("scheduler", scheduler, get_args(SchedulerName))
    return DDIM(steps) if scheduler == "ddim" else DiffusersScheduler(scheduler, steps)


class DDIM:
    """DDIM with eta 0 (arXiv 2010.02502), as upstream samples."""

    def __init__(self, steps: int) -> None:
        self._plan = schedule(steps)
        self.timesteps: Sequence[float] = [timestep for timestep, _, _ in self._plan]

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def scaled(self, latents: Tensor, step: int) -> Tensor:  # noqa: ARG002 - DDIM's are scaled at every step
        return latents

    def step(self, latents: Tensor, predicted: Tensor, step: int) -> Tensor:
        _, alpha, alpha_next = self._plan[step]
        return ddim_step(latents, predicted, alpha, alpha_next)


def ddim_step(latents: Tensor, predicted: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """Removes the predicted noise, and puts back as much as the next step's level holds."""
    clean = (latents - (1 - alpha) ** 0.5 * predicted) / alpha**0.5
    return alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * predicted


def schedule(steps: int) -> list[tuple[int, float, float]]:
    """Per step: the timestep, its cumulative alpha, and that of the step after.

    "Leading" spacing with an offset of one; the last step ends at the first alpha, not at one.
    """
    cumulative = alphas().tolist()
    stride = TRAIN_STEPS // steps
    # one is added to every timestep; at 1000 steps that would leave the table
    timesteps = [min(i * stride + 1, TRAIN_STEPS - 1) for i in reversed(range(steps))]
    return [(t, cumulative[t], cumulative[max(t - stride, 0)]) for t in timesteps]


def alphas() -> Tensor:
    """float32 (1000,): the share of signal left at each training step."""
    low, high = BETAS
    betas = torch.linspace(low**0.5, high**0.5, TRAIN_STEPS) ** 2
    return torch.cumprod(1 - betas, dim=0)


class DiffusersScheduler:
    """One of diffusers' multistep or sigma solvers, with Stable Diffusion 1.x's noise; it ends without any noise left.

    "dpm++ 2m" is arXiv 2211.01095, "unipc" is arXiv 2302.04867 of order 2, "euler" is arXiv 2206.00364.
    """

    def __init__(self, scheduler: SchedulerName, steps: int) -> None:
        self._scheduler: Any = _of_diffusers(scheduler, steps)
        self._scheduler.set_timesteps(steps)
        self.timesteps: Sequence[float] = self._scheduler.timesteps.tolist()

    def start(self, noise: Tensor) -> Tensor:
        return noise * self._scheduler.init_noise_sigma

    def scaled(self, latents: Tensor, step: int) -> Tensor:
        return self._scheduler.scale_model_input(latents, self._scheduler.timesteps[step])

    def step(self, latents: Tensor, predicted: Tensor, step: int) -> Tensor:
        return self._scheduler.step(predicted, self._scheduler.timesteps[step], latents).prev_sample


def _of_diffusers(scheduler: SchedulerName, steps: int) -> Any:  # noqa: ANN401 - untyped there
    try:
        from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
        from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
        from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
    except ImportError as error:
        raise cannot_import("diffusers", "diffusers>=0.32", error, "choose the scheduler ddim") from error

    low, high = BETAS
    # their own spacing, linspace, has no noise to begin with in Euler's only step, and one level twice among 1000
    spacing = "linspace" if 1 < steps < TRAIN_STEPS else "trailing"
    noise: dict[str, Any] = {
        "num_train_timesteps": TRAIN_STEPS,
        "beta_start": low,
        "beta_end": high,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": spacing,
    }
    if scheduler == "euler":
        return EulerDiscreteScheduler(**noise)
    if scheduler == "unipc":
        return UniPCMultistepScheduler(**noise, solver_order=2)
    return DPMSolverMultistepScheduler(**noise, algorithm_type="dpmsolver++", solver_order=2)
