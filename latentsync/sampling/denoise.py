"""The denoising loop: classifier-free guidance and DeepCache."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from ..models.protocols import AudioKV, Denoiser
from ..oom import BatchLimit
from .schedulers import make_scheduler
from .settings import SamplerSettings


@torch.no_grad()
def denoise(
    unet: Denoiser, noise: Tensor, conditioning: Tensor, audio: Tensor, settings: SamplerSettings, room: BatchLimit
) -> Iterator[Tensor]:
    """Samples the latents of a batch of windows, do_cfg by the audio.

    Args:
        unet: computes in the dtype and on the device of the conditioning and the audio.
        noise: (1, 4, 1, r, r), the same for every frame; its dtype is that of the latents.
        conditioning: (windows, 9, frames, r, r), see `condition`.
        audio: (windows, frames, 50, 384).
        settings: scheduler, steps, guidance and step cache; the seed is in the noise.
        room: for so many clips at once; a do_cfg window is two.

    Yields:
        The latents (windows, 4, frames, r, r) after every step; the last are the result.

    Raises:
        RoomError: there is no room for one clip.
    """
    solving, do_cfg = make_scheduler(settings.scheduler, settings.num_inference_steps), settings.guided_steps
    audio_kv = unet.precompute_audio_kv(audio)
    latents = solving.start(noise).expand(len(conditioning), -1, conditioning.shape[2], -1, -1)
    cached_features = None
    for step, timestep in enumerate(solving.timesteps):
        if step % settings.cache_interval == 0 or step == do_cfg.start:
            cached_features = None
        elif cached_features is not None and step == do_cfg.stop:
            _, cached_features = cached_features.chunk(2)
        x = torch.cat([solving.scaled(latents, step).to(conditioning), conditioning], dim=1)
        predicted, cached_features = predict_noise(
            unet, x, timestep, audio_kv, cached_features, do_cfg=step in do_cfg, room=room
        )
        if step in do_cfg:
            silent, aware = predicted.chunk(2)
            predicted = silent + settings.guidance_scale * (aware - silent)
        latents = solving.step(latents, predicted.to(latents), step)
        yield latents


def predict_noise(
    unet: Denoiser,
    x: Tensor,
    timestep: float,
    audio_kv: AudioKV,
    cached_features: Tensor | None,
    *,
    do_cfg: bool,
    room: BatchLimit,
) -> tuple[Tensor, Tensor]:
    """What `unet` returns for a batch of windows (do_cfg: all without audio, then all with it), in one call or more."""
    clips = len(x) * (1 + do_cfg)

    def work(most: int) -> tuple[Tensor, Tensor]:
        if most >= clips:
            return unet(x, timestep, audio_kv, cached_features, do_cfg=do_cfg)
        passes = [None, audio_kv] if do_cfg else [audio_kv]
        states = [None] * len(passes) if cached_features is None else cached_features.chunk(len(passes))
        made = [_one_pass(unet, x, timestep, *given, most) for given in zip(passes, states, strict=True)]
        noises, deeps = zip(*chain.from_iterable(made), strict=True)
        return torch.cat(noises), torch.cat(deeps)

    return room.run(work, clips)


def _one_pass(
    unet: Denoiser, x: Tensor, timestep: float, audio_kv: AudioKV | None, cached_features: Tensor | None, most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `unet` returns for one pass over a batch of windows, `most` of them in each call."""
    frames = x.shape[2]
    for first in range(0, len(x), most):
        rows = slice(first * frames, (first + most) * frames)
        sound = None if audio_kv is None else _select_frames(audio_kv, rows)
        yield unet(x[first : first + most], timestep, sound, None if cached_features is None else cached_features[rows])


def _select_frames(audio_kv: AudioKV, rows: slice) -> AudioKV:
    """The audio of some of a batch's frames."""
    return [(key[rows], value[rows]) for key, value in audio_kv]
