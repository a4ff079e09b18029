"""Settings of the sampler."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal, get_args

from ..errors import UsageError, check_choice

MAX_OVERLAP = 12  # frames that two windows may share: every window still adds at least 4

SchedulerName = Literal["ddim", "dpm++ 2m", "euler", "unipc"]
"""What takes the noise away, step by step."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How the lips are sampled.

    seed: of the one noise frame of the clip, 0 to 2^64 - 1.
    num_inference_steps: denoising steps, 1 to 1000.
    guidance_scale: strength of the audio; 1 is off (and half the work).
    cache_interval: the whole UNet runs every so many steps; 1 runs it in each.
    scheduler: ddim is upstream's; dpm++ 2m and unipc are made for fewer steps.
    overlap: frames that neighbouring windows share and blend, 0 to 12.
    guidance_start, guidance_end: shares of the steps, 0 to 1; a step between is do_cfg, any other costs half.
    """

    seed: int = 1247
    num_inference_steps: int = 20
    guidance_scale: float = 1.5
    cache_interval: int = 3
    scheduler: SchedulerName = "ddim"
    overlap: int = 0
    guidance_start: float = 0.0
    guidance_end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"a seed must be from 0 to {2**64 - 1}, not {self.seed}")
        if not 1 <= self.num_inference_steps <= 1000:
            raise UsageError(f"steps must be from 1 to 1000, not {self.num_inference_steps}")
        if not 1.0 <= self.guidance_scale <= 10.0:
            raise UsageError(f"guidance must be from 1 to 10 (useful: 1 to 3), not {self.guidance_scale}")
        if not 1 <= self.cache_interval <= 10:
            raise UsageError(f"step_cache must be from 1 (off) to 10, not {self.cache_interval}")
        check_choice("scheduler", self.scheduler, get_args(SchedulerName))
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise UsageError(f"overlap must be from 0 (off) to {MAX_OVERLAP} frames, not {self.overlap}")
        if not 0.0 <= self.guidance_start < self.guidance_end <= 1.0:
            raise UsageError(
                "guidance_start must be less than guidance_end, both from 0 to 1, "
                f"not {self.guidance_start} and {self.guidance_end}"
            )
        if self.guidance_scale > 1 and not self.guided_steps:
            raise UsageError(
                f"guidance from {self.guidance_start} to {self.guidance_end} holds none of {self.num_inference_steps} steps: "
                "widen it, take more steps, or set guidance to 1"
            )

    @property
    def guided_steps(self) -> range:
        """The steps, from 0, that guidance is computed in: those whose middle is in its share."""
        if self.guidance_scale <= 1:
            return range(0)
        first, end = (
            ceil(round(share * self.num_inference_steps, 6) - 0.5) for share in (self.guidance_start, self.guidance_end)
        )
        return range(first, end)
