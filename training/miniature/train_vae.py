"""Stage 1: train the VAE on crops of the face, half of them with the mouth masked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from latentsync.faces import alignment
from latentsync.models.constants import LATENT_SCALE
from latentsync.weights import random_init

from .clips import RESOLUTION, Camera, crop_matrices, crops, render
from .face import TalkingFace

NUM_CLIPS, FRAMES_PER_CLIP = 400, 6
BATCH = 4
LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
KL_WEIGHT = 1e-6
GRADIENT_WEIGHT = 1.0
MASKED_SHARE = 0.25  # of the training images have no mouth, like the UNet's masked input


def build_crops(seed: int) -> Tensor:
    """uint8 (n, 3, 128, 128) of random mouths, cameras and light."""
    face, rng = TalkingFace.load(), np.random.default_rng(seed)
    images: list[np.ndarray] = []
    for _ in range(NUM_CLIPS):
        camera = Camera.random(rng)
        mouths = zip(
            rng.uniform(-0.1, 1.1, FRAMES_PER_CLIP).clip(0, 1), rng.uniform(-0.25, 0.12, FRAMES_PER_CLIP), strict=True
        )
        heads = [face.speak(opening, spread) for opening, spread in mouths]
        frames = render(face, heads, camera, rate=1.0)
        images.append(crops(frames, crop_matrices(face, camera, FRAMES_PER_CLIP, 1.0, rng)))
    return torch.from_numpy(np.concatenate(images))


def gradient_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 distance of the differences between neighboring pixels, at two scales."""
    loss = a.new_zeros(())
    for scale in (1, 2):
        a_s, b_s = (F.avg_pool2d(x, scale) for x in (a, b))
        loss = loss + sum((a_s.diff(dim=d) - b_s.diff(dim=d)).abs().mean() for d in (2, 3))
    return loss


def train_vae(images: Tensor, minutes: float, checkpoint: Path, log: Callable[[str], None], seed: int) -> None:
    """Train for a time, or continue from the checkpoint, and write the checkpoint.

    Args:
        images: uint8 (n, 3, R, R).
        log: receives a line from time to time.
    """
    torch.manual_seed(seed)
    vae = random_init.vae().vae.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    spent, step = 0.0, 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(saved["vae"])
        optimizer.load_state_dict(saved["optimizer"])
        spent, step = saved["spent"], saved["step"]
        torch.manual_seed(seed + step)
    keep = torch.from_numpy(alignment.keep_mask(RESOLUTION))
    losses: list[float] = []
    while spent < 60 * minutes:
        started = time.process_time()
        share = spent / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = (
                LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * (0.02 + 0.98 * math.cos(math.pi / 2 * share) ** 2)
            )
        x = images[torch.randint(len(images), (BATCH,))].float() / 127.5 - 1
        masked = torch.rand(BATCH, 1, 1, 1) < MASKED_SHARE
        x = torch.where(masked, x * keep, x)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.mean + 0.05 * torch.randn_like(posterior.mean) * posterior.mean.detach().std()).sample
        # the mouth is small but important
        weight = torch.where(masked, torch.ones_like(keep), 1 + 2 * (1 - keep))
        loss = (
            ((y - x).abs() * weight).mean() + GRADIENT_WEIGHT * gradient_loss(y, x) + KL_WEIGHT * posterior.kl().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append(float((y - x).detach().abs().mean()) * 127.5)
        spent += time.process_time() - started
        if step % 50 == 0:
            log(f"vae step {step}, {spent / 60:.1f} min: mean error {np.mean(losses[-50:]):.2f} levels")
            torch.save(
                {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "spent": spent, "step": step}, checkpoint
            )
    torch.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "spent": spent, "step": step}, checkpoint)


@torch.no_grad()
def normalized_state(checkpoint: Path, images: Tensor) -> dict[str, Tensor]:
    """The trained weights, with the latent scale of Stable Diffusion. LATENT_SCALE times the latents has variance 1.

    Only `quant_conv` and its inverse `post_quant_conv` change.
    """
    state: dict[str, Tensor] = torch.load(checkpoint, weights_only=True)["vae"]
    vae = random_init.vae().vae
    vae.load_state_dict(state)
    latents = torch.cat([vae.encode(batch.float() / 127.5 - 1).latent_dist.mean for batch in images[::20].split(8)])
    mean = latents.mean(dim=(0, 2, 3))
    scale = 1 / (LATENT_SCALE * latents.std(dim=(0, 2, 3)))
    channels = len(mean)
    weight, bias = state["quant_conv.weight"].clone(), state["quant_conv.bias"].clone()
    weight[:channels] *= scale[:, None, None, None]
    bias[:channels] = (bias[:channels] - mean) * scale
    bias[channels:] += 2 * scale.log()  # the log of the variance
    post = state["post_quant_conv.weight"]
    post_bias = state["post_quant_conv.bias"] + post[:, :, 0, 0] @ mean
    return state | {
        "quant_conv.weight": weight,
        "quant_conv.bias": bias,
        "post_quant_conv.weight": post / scale[None, :, None, None],
        "post_quant_conv.bias": post_bias,
    }
