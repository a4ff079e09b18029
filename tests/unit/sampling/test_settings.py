"""SamplerSettings: which values are refused, and which steps have guidance."""

from __future__ import annotations

import pytest

from latentsync.errors import UsageError
from latentsync.sampling.settings import MAX_OVERLAP, SamplerSettings


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.8, 0.2), (-0.1, 1.0), (0.0, 1.1)])
def test_settings_guidance_range_must_be_valid(start: float, end: float) -> None:
    with pytest.raises(UsageError, match=r'"cfg_start_percent" is .* and "cfg_end_percent" is'):
        SamplerSettings(guidance_start=start, guidance_end=end)


def test_settings_guidance_in_no_step_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r'None of the 3 steps is between "cfg_start_percent" 0\.4 and "cfg_end_percent" 0\.45'
    ):
        SamplerSettings(num_inference_steps=3, guidance_start=0.4, guidance_end=0.45)
    without = SamplerSettings(num_inference_steps=3, guidance_scale=1.0, guidance_start=0.4, guidance_end=0.45)
    assert not without.cfg_steps


@pytest.mark.parametrize("overlap", [-1, MAX_OVERLAP + 1])
def test_settings_overlap_out_of_range_is_refused(overlap: int) -> None:
    with pytest.raises(UsageError, match='"overlap" cannot be'):
        SamplerSettings(overlap=overlap)


def test_settings_unknown_scheduler_lists_all() -> None:
    with pytest.raises(UsageError, match=r"sampler_name.*one of ddim, dpmpp_2m, euler, uni_pc"):
        SamplerSettings(scheduler="lcm")


def test_settings_speed_is_overridden_by_explicit_settings() -> None:
    fast = SamplerSettings(seed=7, num_inference_steps=12).at_speed("fast")
    assert (fast.seed, fast.num_inference_steps, fast.scheduler, fast.guidance_end) == (7, 12, "dpmpp_2m", 0.3)
    assert SamplerSettings(cache_interval=2).at_speed("exact").cache_interval == 2
    assert SamplerSettings().at_speed("balanced") == SamplerSettings()
    with pytest.raises(UsageError, match=r'"speed"'):
        SamplerSettings().at_speed("faster")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_settings_preview_must_be_finite_seconds(seconds: float) -> None:
    with pytest.raises(UsageError, match='"preview_seconds" cannot be'):
        SamplerSettings(preview_seconds=seconds)
