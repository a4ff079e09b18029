"""Stage 2: train the UNet, with the official inputs and objective."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.models.constants import WINDOW_FRAMES
from latentsync.models.unet import UNet
from latentsync.sampling.schedulers import alphas_cumprod
from latentsync.weights.random_init import UNET_CONFIG

WINDOW_LENGTHS = ((4, 4), (8, 2), (8, 2), (16, 1))  # frames of a window, windows in a batch: always 16 frames
LEARNING_RATE = 8e-4
WARMUP_STEPS = 100
EMA_DECAY = 0.998
SILENT_SHARE = 0.1  # of the windows have no audio, for classifier-free guidance
MIXED_NOISE_SHARE = 0.2  # of the windows have some different noise in each frame
KEPT_WEIGHT = 0.2  # of the loss where pixels stay original
MAX_TIMESTEP_WEIGHT = 30.0


def untrained_unet() -> UNet:
    """PyTorch's initialization. Each transformer begins as the identity, as in Stable Diffusion and AnimateDiff."""
    unet = UNet(UNET_CONFIG)
    for name, parameter in unet.named_parameters():
        if ".proj_out." in name or name.startswith("conv_out."):
            torch.nn.init.zeros_(parameter)
    return unet


def noisy_batch(clips: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """A random batch: noisy input (n, 13, frames, r, r), audio, noise, loss weights (n, 1, 1, r, r), timestep."""
    frames, count = WINDOW_LENGTHS[int(torch.randint(len(WINDOW_LENGTHS), ()))]
    picked = torch.randint(len(clips["target"]), (count,))
    start = int(torch.randint(WINDOW_FRAMES - frames + 1, ()))
    window = slice(start, start + frames)
    target, conditioning = (clips[name][picked][:, :, window].float() for name in ("target", "conditioning"))
    audio = clips["audio"][picked][:, window].float() * (torch.rand(count, 1, 1, 1) >= SILENT_SHARE)
    # the sampler starts from one noise for all frames
    noise = torch.randn_like(target[:, :, :1]).expand_as(target)
    mix = (torch.rand(count, 1, 1, 1, 1) < MIXED_NOISE_SHARE) * 0.5
    noise = (1 - mix**2).sqrt() * noise + mix * torch.randn_like(target)
    timestep = int(torch.randint(1000, ()))
    alpha = float(alphas_cumprod()[timestep])
    noisy = math.sqrt(alpha) * target + math.sqrt(1 - alpha) * noise
    kept = conditioning[:, :1, :1]
    # the v-objective's weight (arXiv 2202.00512), because the first, noisy steps decide the mouth's shape
    weight = (KEPT_WEIGHT * kept + 1 - kept) * min(1 / alpha, MAX_TIMESTEP_WEIGHT)
    return torch.cat([noisy, conditioning], dim=1), audio, noise, weight, float(timestep)


def train_unet(
    clips: dict[str, Tensor], minutes: float, checkpoint: Path, log: Callable[[str], None], seed: int
) -> None:
    """Train for a time, or continue from the checkpoint, and write the checkpoint.

    Args:
        clips: from `dataset.encode_clips`.
        log: receives a line from time to time.
    """
    torch.manual_seed(seed)
    unet = untrained_unet()
    mean_unet = copy.deepcopy(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    spent, step = 0.0, 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        unet.load_state_dict(saved["unet"])
        mean_unet.load_state_dict(saved["mean_unet"])
        optimizer.load_state_dict(saved["optimizer"])
        spent, step = saved["spent"], saved["step"]
        torch.manual_seed(seed + step)
    losses: list[float] = []

    def save() -> None:
        states = {"unet": unet.state_dict(), "mean_unet": mean_unet.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**states, "spent": spent, "step": step}, checkpoint)

    while spent < 60 * minutes:
        started = time.process_time()
        decay = math.cos(math.pi / 2 * min(spent / (60 * minutes), 1)) ** 2
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * decay)
        x, audio, noise, weight, timestep = noisy_batch(clips)
        predicted, _ = unet(x, timestep, unet.precompute_audio_kv(audio))
        error = (predicted - noise).square()
        loss = (weight * error).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        step += 1
        with torch.no_grad():
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            for mean, parameter in zip(mean_unet.parameters(), unet.parameters(), strict=True):
                mean.lerp_(parameter, 1 - decay)
        losses.append(float(loss.detach()))
        spent += time.process_time() - started
        if step % 100 == 0:
            log(f"unet step {step}, {spent / 60:.1f} min: loss {np.mean(losses[-100:]):.4f}")
        if step % 500 == 0:
            save()
    save()
