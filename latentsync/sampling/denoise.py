"""The denoising loop: classifier-free guidance and DeepCache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..models.protocols import AudioKV, Denoiser
from ..oom import BatchLimit
from .schedulers import SCHEDULERS
from .settings import SamplerSettings


@torch.no_grad()
def denoise(
    unet: Denoiser,
    noise: Tensor,
    conditioning: Tensor,
    audio: Tensor,
    settings: SamplerSettings,
    batch_limit: BatchLimit,
) -> Iterator[Tensor]:
    """Sample the latents of a batch of windows.

    Args:
        unet: runs in the dtype and on the device of the conditioning and the audio.
        noise: (1, 4, 1, r, r), the same for every frame. The latents have the same dtype.
        conditioning: (windows, 9, frames, r, r), see `prepare_conditioning`.
        audio: (windows, frames, 50, 384).
        settings: the function ignores the seed and the overlap.
        batch_limit: largest batch of the UNet. A window with guidance counts as 2.

    Yields:
        The latents (windows, 4, frames, r, r) after every step. The last latents are the result.

    Raises:
        OutOfMemoryError: one window without guidance does not fit in VRAM or RAM.
    """
    scheduler, cfg_steps = SCHEDULERS[settings.scheduler](settings.num_inference_steps), settings.cfg_steps
    audio_kv = unet.precompute_audio_kv(audio)
    latents = scheduler.scale_noise(noise).expand(len(conditioning), -1, conditioning.shape[2], -1, -1)
    cached_features = None
    for step, timestep in enumerate(scheduler.timesteps):
        do_cfg = step in cfg_steps
        if step % settings.cache_interval == 0 or step == cfg_steps.start:
            cached_features = None  # DeepCache: run the full UNet
        elif step == cfg_steps.stop and cached_features is not None:
            _, cached_features = cached_features.chunk(2)  # keep the conditional half
        x = torch.cat([scheduler.scale_model_input(latents, step).to(conditioning), conditioning], dim=1)
        noise_pred, cached_features = predict_noise(
            unet, x, timestep, audio_kv, cached_features, do_cfg=do_cfg, batch_limit=batch_limit
        )
        if do_cfg:
            uncond, cond = noise_pred.chunk(2)
            noise_pred = uncond + settings.guidance_scale * (cond - uncond)
        latents = scheduler.step(latents, noise_pred.to(latents), step)
        yield latents


def predict_noise(
    unet: Denoiser,
    x: Tensor,
    timestep: float,
    audio_kv: AudioKV,
    cached_features: Tensor | None,
    *,
    do_cfg: bool,
    batch_limit: BatchLimit,
) -> tuple[Tensor, Tensor]:
    """Run `unet` on a batch of windows and return the result. After an out-of-memory error, use smaller batches."""
    batch = len(x) * (1 + do_cfg)
    frames = x.shape[2]

    def run(batch_size: int) -> tuple[Tensor, Tensor]:
        if batch_size >= batch:
            return unet(x, timestep, audio_kv, cached_features, do_cfg=do_cfg)
        # first all windows without audio, then all with it
        passes = [None, audio_kv] if do_cfg else [audio_kv]
        features = [None] * len(passes) if cached_features is None else cached_features.chunk(len(passes))
        outputs: list[tuple[Tensor, Tensor]] = []
        for pass_kv, pass_features in zip(passes, features, strict=True):
            for start in range(0, len(x), batch_size):
                rows = slice(start * frames, (start + batch_size) * frames)
                kv = None if pass_kv is None else [(key[rows], value[rows]) for key, value in pass_kv]
                row_features = None if pass_features is None else pass_features[rows]
                outputs.append(unet(x[start : start + batch_size], timestep, kv, row_features))
        noise_preds, output_features = zip(*outputs, strict=True)
        return torch.cat(noise_preds), torch.cat(output_features)

    return batch_limit.run(run, batch)
