"""The sampler's stages computed plainly, as ByteDance's repository does (a229c39): what ours is measured against.

Every layer works on clips (b, c, f, h, w), and each convolution folds the frames into the batch and out again; both
passes of the guidance are one batch through the whole network at every step, silence as audio of zeros; the VAE takes
all frames of a window at once. Written anew on the weights of the official layout: it shares tensors with our network,
but none of its code, and steps with diffusers' DDIM.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from latentsync.sampling.settings import SamplerSettings

Weights = dict[str, Any]  # by parts of the names, nested: tensors are the leaves

HEADS, GROUPS = 8, 32
RESNET_EPS, TRANSFORMER_EPS = 1e-5, 1e-6
LATENT_SCALE = 0.18215


@torch.no_grad()
def denoise(weights: Weights, noise: Tensor, conditioning: Tensor, audio: Tensor, settings: SamplerSettings) -> Tensor:
    """The latents (1, 4, frames, r, r) of one window after all steps.

    Args:
        weights: of the UNet, see `nested`.
        noise: (1, 4, 1, r, r), the same for every frame; its dtype is that of the latents.
        conditioning: (1, 9, frames, r, r), see `prepare_conditioning`.
        audio: (1, frames, 50, 384).
        settings: steps, guidance and the interval of DeepCache, which the official tools use (branch 0).
    """
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    scheduler.set_timesteps(settings.num_inference_steps)
    latents = noise.repeat(1, 1, conditioning.shape[2], 1, 1)
    features = None
    for step, timestep in enumerate(scheduler.timesteps):
        features = None if step % settings.cache_interval == 0 else features
        x = torch.cat([latents.to(audio), conditioning], dim=1)
        predicted, features = guided(weights, x, timestep, audio, settings, features)
        latents = scheduler.step(predicted.to(latents), timestep, latents).prev_sample
    return latents


def guided(
    weights: Weights, x: Tensor, timestep: Tensor, audio: Tensor, settings: SamplerSettings, features: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The noise (1, 4, frames, r, r), without and with the audio in one batch, and the features for DeepCache."""
    if settings.guidance_scale == 1:
        return unet(weights, x, timestep, audio, features)
    both = torch.cat([torch.zeros_like(audio), audio])
    noise, features = unet(weights, torch.cat([x] * 2), timestep, both, features)
    silent, aware = noise.chunk(2)
    return silent + settings.guidance_scale * (aware - silent), features


@torch.no_grad()
def encode(vae: Any, images: Tensor) -> Tensor:
    """(frames, 3, R, R) in [-1, 1] -> scaled latents (frames, 4, R/8, R/8)."""
    return vae.encode(images).latent_dist.mean * LATENT_SCALE


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents (frames, 4, R/8, R/8) -> (frames, 3, R, R), about [-1, 1]."""
    return vae.decode(latents / LATENT_SCALE).sample


def nested(state: Mapping[str, Tensor]) -> Weights:
    """A state dict as a tree; the tensors are the same."""
    root: Weights = {}
    for key, tensor in state.items():
        *path, name = key.split(".")
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node[name] = tensor
    return root


def unet(
    weights: Weights, x: Tensor, timestep: Tensor, audio: Tensor, features: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The noise (b, 4, f, h, w) in x (b, 13, f, h, w), given the audio (b, f, 50, 384), and what the last layer took.

    Args:
        features: from an earlier pass. With it only the first convolution and the last layer run.
    """
    time, audio = embedded(weights["time_embedding"], timestep, x), audio.flatten(0, 1)
    skips = [conv(weights["conv_in"], x)]
    if features is None:
        features = trunk(weights, skips, time, audio)
    *_, last = weights["up_blocks"].values()
    hidden = layer(last, len(last["resnets"]) - 1, torch.cat([features, skips[0]], dim=1), time, audio)
    return conv(weights["conv_out"], F.silu(group_norm(weights["conv_norm_out"], hidden, RESNET_EPS))), features


def trunk(weights: Weights, skips: list[Tensor], time: Tensor, audio: Tensor) -> Tensor:
    """Everything between the first convolution, whose result is in `skips`, and the last layer."""
    hidden = skips[0]
    for block in weights["down_blocks"].values():
        for index in range(len(block["resnets"])):
            hidden = layer(block, index, hidden, time, audio)
            skips.append(hidden)
        for downsampler in children(block, "downsamplers"):
            hidden = conv(downsampler["conv"], hidden, stride=2)
            skips.append(hidden)
    hidden = middle(weights["mid_block"], hidden, time, audio)
    for block in weights["up_blocks"].values():
        for index in range(len(block["resnets"])):
            if len(skips) > 1:  # the last layer takes the first skip
                hidden = layer(block, index, torch.cat([hidden, skips.pop()], dim=1), time, audio)
        for upsampler in children(block, "upsamplers"):
            hidden = conv(upsampler["conv"], F.interpolate(hidden, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))
    return hidden


def children(node: Weights, name: str) -> list[Weights]:
    """The numbered parts of that name, none if there is none of that name."""
    return list(node.get(name, {}).values())


def embedded(node: Weights, timestep: Tensor, x: Tensor) -> Tensor:
    """(b, time width): the same in every row."""
    half = node["linear_1"]["weight"].shape[1] // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=x.device) / half)
    angles = timestep.to(x.device).expand(len(x))[:, None] * rates
    waves = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1).to(x.dtype)
    return linear(node["linear_2"], F.silu(linear(node["linear_1"], waves)))


def layer(block: Weights, index: int, x: Tensor, time: Tensor, audio: Tensor) -> Tensor:
    x = resnet(block["resnets"][str(index)], x, time)
    if "attentions" in block:
        x = spatial(block["attentions"][str(index)], x, audio)
    return motion(block["motion_modules"][str(index)]["temporal_transformer"], x)


def middle(block: Weights, x: Tensor, time: Tensor, audio: Tensor) -> Tensor:
    x = resnet(block["resnets"]["0"], x, time)
    x = spatial(block["attentions"]["0"], x, audio)
    return resnet(block["resnets"]["1"], x, time)


def resnet(node: Weights, x: Tensor, time: Tensor) -> Tensor:
    hidden = conv(node["conv1"], F.silu(group_norm(node["norm1"], x, RESNET_EPS)))
    hidden = hidden + linear(node["time_emb_proj"], F.silu(time))[:, :, None, None, None]
    hidden = conv(node["conv2"], F.silu(group_norm(node["norm2"], hidden, RESNET_EPS)))
    return hidden + (conv(node["conv_shortcut"], x) if "conv_shortcut" in node else x)


def spatial(node: Weights, x: Tensor, audio: Tensor) -> Tensor:
    """Pixels of each frame attend to each other, then to the audio (b * f, 50, 384) of their frame."""
    batch, _, _, height, width = x.shape
    frames = fold(x)
    hidden = conv2d(node["proj_in"], group_norm(node["norm"], frames, TRANSFORMER_EPS))
    hidden = hidden.permute(0, 2, 3, 1).flatten(1, 2)
    for block in node["transformer_blocks"].values():
        normed = layer_norm(block["norm1"], hidden)
        hidden = attention(block["attn1"], normed, normed) + hidden
        hidden = attention(block["attn2"], layer_norm(block["norm2"], hidden), audio) + hidden
        hidden = feed_forward(block["ff"], layer_norm(block["norm3"], hidden)) + hidden
    hidden = hidden.unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
    return unfold(conv2d(node["proj_out"], hidden) + frames, batch)


def motion(node: Weights, x: Tensor) -> Tensor:
    """The frames attend to each other at each pixel."""
    batch, _, count, height, width = x.shape
    frames = fold(x)
    hidden = group_norm(node["norm"], frames, TRANSFORMER_EPS).permute(0, 2, 3, 1).flatten(1, 2)
    hidden = linear(node["proj_in"], hidden)
    for block in node["transformer_blocks"].values():
        for attend, norm in zip(block["attention_blocks"].values(), block["norms"].values(), strict=True):
            hidden = temporal(attend, layer_norm(norm, hidden), count) + hidden
        hidden = feed_forward(block["ff"], layer_norm(block["ff_norm"], hidden)) + hidden
    hidden = linear(node["proj_out"], hidden).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
    return unfold(hidden + frames, batch)


def temporal(node: Weights, x: Tensor, count: int) -> Tensor:
    """x: (b * f, pixels, width) of clips of `count` frames."""
    pixels = x.shape[1]
    x = x.unflatten(0, (-1, count)).transpose(1, 2).flatten(0, 1)
    x = x + node["pos_encoder"]["pe"][:, :count].to(x)
    return attention(node, x, x).unflatten(0, (-1, pixels)).transpose(1, 2).flatten(0, 1)


def attention(node: Weights, x: Tensor, source: Tensor) -> Tensor:
    query, key, value = (
        linear(node[name], given).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for name, given in (("to_q", x), ("to_k", source), ("to_v", source))
    )
    return linear(node["to_out"]["0"], F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def feed_forward(node: Weights, x: Tensor) -> Tensor:
    value, gate = linear(node["net"]["0"]["proj"], x).chunk(2, dim=-1)
    return linear(node["net"]["2"], value * F.gelu(gate))


def conv(node: Weights, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution of each frame of x (b, c, f, h, w)."""
    return unfold(conv2d(node, fold(x), stride), len(x))


def conv2d(node: Weights, x: Tensor, stride: int = 1) -> Tensor:
    weight = node["weight"]
    return F.conv2d(x, weight, node["bias"], stride=stride, padding=weight.shape[-1] // 2)


def linear(node: Weights, x: Tensor) -> Tensor:
    return F.linear(x, node["weight"], node.get("bias"))


def group_norm(node: Weights, x: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, GROUPS, node["weight"], node["bias"], eps)


def layer_norm(node: Weights, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], node["weight"], node["bias"])


def fold(x: Tensor) -> Tensor:
    """(b, c, f, h, w) -> (b * f, c, h, w)."""
    return x.permute(0, 2, 1, 3, 4).flatten(0, 1)


def unfold(x: Tensor, batch: int) -> Tensor:
    """(b * f, c, h, w) -> (b, c, f, h, w)."""
    return x.unflatten(0, (batch, -1)).permute(0, 2, 1, 3, 4)
