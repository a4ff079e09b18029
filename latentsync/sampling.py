"""The verbs of diffusion: noise, conditioning, denoising, guidance. Device and dtype come from the inputs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .models.layers import Heard
from .room import Room
from .solvers import solver
from .spec import LATENT_CHANNELS, LATENT_SCALE, LATENT_STRIDE
from .types import Codec, SamplerSettings


class Denoiser(Protocol):
    """What the sampler needs of a network: see `models.unet.UNet`."""

    def hear(self, audio: Tensor) -> Heard: ...

    def __call__(
        self, x: Tensor, timestep: float, heard: Heard | None, deep: Tensor | None = None, *, guided: bool = False
    ) -> tuple[Tensor, Tensor]: ...


@torch.no_grad()
def denoise(
    unet: Denoiser, noise: Tensor, conditioning: Tensor, audio: Tensor, settings: SamplerSettings, room: Room
) -> Iterator[Tensor]:
    """Samples the latents of a batch of windows, guided by the audio.

    Args:
        unet: computes in the dtype and on the device of the conditioning and the audio.
        noise: (1, 4, 1, r, r), the same for every frame; its dtype is that of the latents.
        conditioning: (windows, 9, frames, r, r), see `condition`.
        audio: (windows, frames, 50, 384).
        settings: scheduler, steps, guidance and step cache; the seed is in the noise.
        room: for so many clips at once; a guided window is two.

    Yields:
        The latents (windows, 4, frames, r, r) after every step; the last are the result.

    Raises:
        RoomError: there is no room for one clip.
    """
    solving, guided = solver(settings.scheduler, settings.steps), settings.guided_steps
    heard = unet.hear(audio)
    latents = solving.start(noise).expand(len(conditioning), -1, conditioning.shape[2], -1, -1)
    deep = None
    for step, timestep in enumerate(solving.timesteps):
        if step % settings.step_cache == 0 or step == guided.start:
            deep = None
        elif deep is not None and step == guided.stop:
            _, deep = deep.chunk(2)
        x = torch.cat([solving.scaled(latents, step).to(conditioning), conditioning], dim=1)
        predicted, deep = predict(unet, x, timestep, heard, deep, guided=step in guided, room=room)
        if step in guided:
            silent, aware = predicted.chunk(2)
            predicted = silent + settings.guidance * (aware - silent)
        latents = solving.step(latents, predicted.to(latents), step)
        yield latents


def predict(
    unet: Denoiser, x: Tensor, timestep: float, heard: Heard, deep: Tensor | None, *, guided: bool, room: Room
) -> tuple[Tensor, Tensor]:
    """What `unet` returns for a batch of windows (guided: all without audio, then all with it), in one call or more."""
    clips = len(x) * (1 + guided)

    def work(most: int) -> tuple[Tensor, Tensor]:
        if most >= clips:
            return unet(x, timestep, heard, deep, guided=guided)
        passes = [None, heard] if guided else [heard]
        states = [None] * len(passes) if deep is None else deep.chunk(len(passes))
        made = [_one_pass(unet, x, timestep, *given, most) for given in zip(passes, states, strict=True)]
        noises, deeps = zip(*chain.from_iterable(made), strict=True)
        return torch.cat(noises), torch.cat(deeps)

    return room.run(work, clips)


def _one_pass(
    unet: Denoiser, x: Tensor, timestep: float, heard: Heard | None, deep: Tensor | None, most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """What `unet` returns for one pass over a batch of windows, `most` of them in each call."""
    frames = x.shape[2]
    for first in range(0, len(x), most):
        rows = slice(first * frames, (first + most) * frames)
        sound = None if heard is None else _of(heard, rows)
        yield unet(x[first : first + most], timestep, sound, None if deep is None else deep[rows])


def _of(heard: Heard, rows: slice) -> Heard:
    """The audio of some of a batch's frames."""
    return [(key[rows], value[rows]) for key, value in heard]


def draw_noise(seed: int, resolution: int) -> Tensor:
    """float32 (1, 4, 1, R/8, R/8) on the CPU: the one noise frame of a clip, whatever device samples it."""
    side = resolution // LATENT_STRIDE
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(1, LATENT_CHANNELS, 1, side, side, generator=generator)


@torch.no_grad()
def condition(crops: Tensor, keep: Tensor, codec: Codec) -> Tensor:
    """What the UNet sees of a window besides the noise.

    Args:
        crops: uint8 (frames, 3, R, R).
        keep: float32 (R, R): 1 keep, 0 regenerate.
        codec: encodes both.

    Returns:
        (1, 9, frames, R/8, R/8) as the codec gives it: mask 1, masked latents 4, reference latents 4, scaled.
    """
    reference = as_pixels(crops)
    masked_latents = codec.encode(reference * keep.to(reference)) * LATENT_SCALE
    reference_latents = codec.encode(reference) * LATENT_SCALE
    mask = F.interpolate(keep[None, None], scale_factor=1 / LATENT_STRIDE, mode="nearest").to(reference_latents)
    channels = [mask.expand(len(crops), -1, -1, -1), masked_latents, reference_latents]
    return torch.cat(channels, dim=1).transpose(0, 1)[None]


def as_pixels(crops: Tensor) -> Tensor:
    """uint8 0 to 255 -> float32 -1 to 1."""
    return crops.float() / 127.5 - 1
