"""Settings of the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, isfinite
from typing import Any

from ..errors import UsageError, check_choice
from .schedulers import SCHEDULERS

MAX_OVERLAP = 12  # frames that two windows may share: every window still adds at least 4


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """Settings for generating the mouths.

    seed: noise seed, 0 to 2^64 - 1. All frames use the same noise frame.
    num_inference_steps: denoising steps, 1 to 1000.
    guidance_scale: strength of classifier-free guidance, 1 to 10. A value of 1 turns guidance off and halves the time.
    cache_interval: DeepCache runs the full UNet every `cache_interval` steps, 1 to 10. A value of 1 turns DeepCache
        off.
    scheduler: a key of `SCHEDULERS`. The official code uses ddim. dpmpp_2m and uni_pc need fewer steps.
    overlap: frames that neighboring windows share and cross-fade, 0 to 12.
    guidance_start, guidance_end: range of the steps with guidance, as fractions from 0 to 1. Other steps take half
        the time.
    preview_seconds: length of a preview. The result ends after this time. 0: the whole result.
    """

    seed: int = 1247
    num_inference_steps: int = 20
    guidance_scale: float = 1.5
    cache_interval: int = 3
    scheduler: str = "ddim"
    overlap: int = 0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    preview_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise UsageError(f'"seed" cannot be {self.seed}. Choose a number from 0 to {2**64 - 1}.')
        if not 1 <= self.num_inference_steps <= 1000:
            raise UsageError(f'"steps" cannot be {self.num_inference_steps}. Choose a number from 1 to 1000.')
        if not 1.0 <= self.guidance_scale <= 10.0:
            raise UsageError(
                f'"cfg" cannot be {self.guidance_scale}. Choose a value from 1 to 10. Values up to 3 are useful.'
            )
        if not 1 <= self.cache_interval <= 10:
            raise UsageError(
                f'"deepcache_interval" cannot be {self.cache_interval}. Choose a number from 1 (off) to 10.'
            )
        check_choice("sampler_name", self.scheduler, tuple(SCHEDULERS))
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise UsageError(
                f'"overlap" cannot be {self.overlap} frames. Choose a number from 0 (off) to {MAX_OVERLAP}.'
            )
        if not 0.0 <= self.guidance_start < self.guidance_end <= 1.0:
            raise UsageError(
                f'"cfg_start_percent" is {self.guidance_start} and "cfg_end_percent" is {self.guidance_end}. '
                "Choose two values from 0 to 1. The start must be smaller than the end."
            )
        if self.preview_seconds < 0 or not isfinite(self.preview_seconds):
            raise UsageError(
                f'"preview_seconds" cannot be {self.preview_seconds}. Choose 0 (all) or a number of seconds.'
            )
        if self.guidance_scale > 1 and not self.cfg_steps:
            raise UsageError(
                f'None of the {self.num_inference_steps} steps is between "cfg_start_percent" {self.guidance_start} '
                f'and "cfg_end_percent" {self.guidance_end}. Widen the range, use more steps, or set "cfg" to 1.'
            )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> SamplerSettings:
        """Settings from the names and values of fields. Raises UsageError for other names."""
        unknown = fields.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise UsageError(
                f"The sampler does not support these settings: {', '.join(sorted(unknown))}. "
                f"Use only {', '.join(cls.__dataclass_fields__)}."
            )
        return cls(**fields)

    def at_speed(self, speed: str) -> SamplerSettings:
        """These settings with a preset of `SPEEDS`. Settings that differ from their default do not change."""
        check_choice("speed", speed, tuple(SPEEDS))
        defaults = SamplerSettings()
        unchanged = {
            name: value for name, value in SPEEDS[speed].items() if getattr(self, name) == getattr(defaults, name)
        }
        return replace(self, **unchanged)

    def takes(self, count: int) -> list[SamplerSettings]:
        """The settings of a number of takes. The seed increases by one from take to take.

        Raises:
            UsageError: the number of takes or a seed is out of range.
        """
        if count < 1:
            raise UsageError(f'"takes" cannot be {count}. Choose 1 or a higher number.')
        return [replace(self, seed=self.seed + take) for take in range(count)]

    @property
    def cfg_steps(self) -> range:
        """The steps with classifier-free guidance, from 0. A step counts if its middle is in the range."""
        if self.guidance_scale <= 1:
            return range(0)
        start, stop = (
            ceil(round(fraction * self.num_inference_steps, 6) - 0.5)
            for fraction in (self.guidance_start, self.guidance_end)
        )
        return range(start, stop)


SPEEDS: Mapping[str, Mapping[str, Any]] = {
    "exact": {"cache_interval": 1},
    "balanced": {},  # the defaults, as in the official tools
    "fast": {"scheduler": "dpmpp_2m", "num_inference_steps": 10, "guidance_end": 0.3},
}
"""Settings of each preset. To add a preset, add a row."""
