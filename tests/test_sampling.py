"""The sampler: DDIM as diffusers computes it, the conditioning's channels, the step cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latentsync import sampling
from latentsync.errors import RoomError
from latentsync.models.layers import Heard
from latentsync.pipeline import clips_at_once
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
    """A denoiser that remembers how it was called.

    It predicts what it was called with: ones, times the mean of the audio that it hears.

    Args:
        holds: more clips than that at once are more than its memory has room for.
    """

    def __init__(self, holds: int = 100) -> None:
        self.holds = holds
        self.whole: list[bool] = []
        self.clips: list[int] = []
        self.heard: list[Heard | None] = []

    def hear(self, audio: torch.Tensor) -> Heard:
        return [(audio.flatten(0, 1), audio.flatten(0, 1))]

    def __call__(
        self,
        x: torch.Tensor,
        timestep: float,
        heard: Heard | None,
        deep: torch.Tensor | None = None,
        *,
        guided: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        clips, frames = len(x) * (1 + guided), x.shape[2]
        if clips > self.holds:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 1.00 GiB.")
        self.whole.append(deep is None)
        self.clips.append(clips)
        self.heard.append(heard)
        sound = torch.zeros(0) if heard is None else heard[0][0].unflatten(0, (-1, frames)).mean(dim=(1, 2, 3))
        level = torch.cat([torch.zeros(clips - len(sound)), sound])
        state = torch.full((clips * frames, 1), float(timestep)) if deep is None else deep
        return level[:, None, None, None, None] * torch.ones_like(x[:1, :4]), state


def run(
    settings: SamplerSettings, windows: int = 1, unet: Recorder | None = None, most: int = 100
) -> tuple[Recorder, list[torch.Tensor]]:
    unet = unet or Recorder()
    noise, conditioning = parity.normal(1, 1, 4, 1, 2, 2), parity.normal(2, windows, 9, 3, 2, 2)
    heard = parity.normal(3, windows, 3, 50, 384)
    return unet, list(sampling.denoise(unet, noise, conditioning, heard, settings, clips_at_once(most)))


def test_every_step_is_yielded() -> None:
    _, latents = run(SamplerSettings(steps=5), windows=2)
    assert [step.shape for step in latents] == [(2, 4, 3, 2, 2)] * 5


@pytest.mark.parametrize(("interval", "whole"), [(1, [True] * 7), (3, [True, False, False, True, False, False, True])])
def test_the_whole_network_runs_at_the_interval(interval: int, whole: list[bool]) -> None:
    unet, _ = run(SamplerSettings(steps=7, step_cache=interval))
    assert unet.whole == whole


@pytest.mark.parametrize(("guidance", "clips"), [(1.0, 1), (1.5, 2)])
def test_guidance_of_one_runs_once(guidance: float, clips: int) -> None:
    unet, _ = run(SamplerSettings(steps=2, guidance=guidance))
    assert unet.clips == [clips] * 2


@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("most", [1, 2, 4])
def test_the_result_is_the_same_in_any_number_of_calls(windows: int, most: int) -> None:
    settings = SamplerSettings(steps=4, guidance=2.0, step_cache=2)
    _, at_once = run(settings, windows)
    _, apart = run(settings, windows, most=most)
    assert all(torch.equal(one, other) for one, other in zip(at_once, apart, strict=True))


def test_guidance_hears_silence_first() -> None:
    unet, _ = run(SamplerSettings(steps=1, guidance=2.0), most=1)
    silent, heard = unet.heard
    assert silent is None
    assert heard is not None


@pytest.mark.parametrize(("holds", "clips"), [(1, [1] * 8), (2, [2, 2] * 2)])
def test_less_is_done_at_once_when_memory_runs_out(holds: int, clips: list[int]) -> None:
    settings = SamplerSettings(steps=2, guidance=2.0)
    _, expected = run(settings, windows=2)
    unet, latents = run(settings, windows=2, unet=Recorder(holds), most=4)
    assert unet.clips == clips
    assert torch.equal(latents[-1], expected[-1])


def test_no_room_for_one_clip_is_said_in_a_sentence() -> None:
    with pytest.raises(RoomError, match=r"out of memory with clips in the UNet one at a time: choose version 1\.5"):
        run(SamplerSettings(steps=2), unet=Recorder(holds=0))


def test_latents_keep_the_precision_of_the_noise() -> None:
    noise = parity.normal(1, 1, 4, 1, 2, 2)
    conditioning = parity.normal(2, 1, 9, 3, 2, 2).half()
    heard = parity.normal(3, 1, 3, 50, 384).half()
    settings = SamplerSettings(steps=2)
    *_, latents = sampling.denoise(Recorder(), noise, conditioning, heard, settings, clips_at_once(2))
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
