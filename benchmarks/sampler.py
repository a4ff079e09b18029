"""The sampler and the VAE, stage by stage, against a plain writing of the same: time, memory, and whether they agree.

Usage: python -m benchmarks.sampler [--device DEVICE] [--dtype float32] [--side 32] [--frames 16] [--steps 20]
           [--guidance 1.5] [--rounds 3] [--stages vae sampling ladder] [--tiny] [--json benchmarks/sampler.json]

Weights are untrained, at full size unless `--tiny`, and shared by all ways. Everything runs in this process, in turn,
so that ratios are of one machine at one time. Memory is what comes on top of the weights: on a processor the growth of
resident memory (Linux), on an accelerator what the allocator has given out at most.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.meter import Meter, Taken, Work, in_turn
from latentsync.bench import FULL_VAE_CHANNELS
from latentsync.models.constants import (
    AUDIO_POSITIONS,
    AUDIO_STATES,
    AUDIO_WIDTH,
    LATENT_CHANNELS,
    LATENT_STRIDE,
    WINDOW_FRAMES,
)
from latentsync.models.layers import fold
from latentsync.models.unet import UNet
from latentsync.models.vae import DiffusersVAE, autoencoder_of
from latentsync.oom import BatchLimit
from latentsync.sampling.denoise import denoise
from latentsync.sampling.sampler import CFG_BATCH
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import MODEL_RATE
from latentsync.weights import loader, random_init

CACHE = 3
TIMESTEP = 501.0
PART = "part of it: "  # of the names of a step's parts
MB = 1e6

Row = dict[str, Any]


class Window(NamedTuple):
    """What is sampled, and the networks that do it.

    noise (1, 4, 1, r, r), conditioning (1, 9, frames, r, r), audio (1, frames, 50, 384).
    weights: for the plain way. unet: our network, of the same tensors.
    """

    noise: Tensor
    conditioning: Tensor
    audio: Tensor
    weights: plain.Weights
    unet: UNet

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Window:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(options.device)

        side, frames = options.side, options.frames
        state = unet_weights(tiny=options.tiny, device=options.device, dtype=options.dtype)
        config = random_init.UNET_CONFIG if options.tiny else None
        return cls(
            normal(1, LATENT_CHANNELS, 1, side, side),
            normal(1, 2 * LATENT_CHANNELS + 1, frames, side, side).to(options.dtype),
            normal(1, frames, AUDIO_POSITIONS * AUDIO_STATES, AUDIO_WIDTH).to(options.dtype),
            plain.nested(state),
            loader.build(lambda: UNet(config), state, name="untrained UNet"),
        )


def unet_weights(*, tiny: bool, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Untrained: those that torch's layers begin with leave what passes through them of one size."""
    torch.manual_seed(0)
    with device:
        unet = random_init.unet() if tiny else UNet()
    return {key: tensor.detach() for key, tensor in unet.to(device, dtype).state_dict().items()}


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    stages = {"vae": of_vae, "sampling": of_sampling, "ladder": of_ladder}
    report: Row = {"settings": {name: str(value) for name, value in vars(options).items() if name != "json"}}
    window: Window | None = None
    for name in options.stages:
        if name != "vae":
            window = window or Window.from_options(options)
        rows = [*shown(name, stages[name](options, cast("Window", window)))]
        report[name] = rows
        # each may take an hour: none is to be lost with a later one
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{table(rows)}\n\n")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the sampler against a plain one.")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32, help="as torch's")
    parser.add_argument("--side", type=int, default=32, help="of the latents: 32 is 256 pixels")
    parser.add_argument("--frames", type=int, default=WINDOW_FRAMES)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3, help="of the ladder and the VAE, whose medians count")
    parser.add_argument("--stages", nargs="+", choices=("vae", "sampling", "ladder"))
    parser.add_argument("--tiny", action="store_true", help="the small untrained networks instead of full-size ones")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"), help="also written here")
    parser.set_defaults(stages=["vae", "sampling", "ladder"])
    return parser.parse_args(arguments)


@torch.no_grad()
def of_sampling(options: argparse.Namespace, window: Window) -> Iterator[Row]:
    """A window from noise to its last latents: plainly, and by the product."""
    given = window.noise, window.conditioning, window.audio
    exact = SamplerSettings(num_inference_steps=options.steps, guidance_scale=options.guidance, cache_interval=1)

    def product(settings: SamplerSettings) -> Tensor:
        *_, latents = denoise(window.unet, *given, settings, BatchLimit(CFG_BATCH, "the UNet"))
        return latents

    if options.device.type != "cpu":  # the first call of a kernel takes longer
        warm_up = replace(exact, num_inference_steps=2, cache_interval=2)
        plain.denoise(window.weights, *given, warm_up)
        product(warm_up)
    meter = Meter(options.device)
    baseline = meter.take(lambda: plain.denoise(window.weights, *given, exact))
    yield sampling_row("plain", baseline, baseline, options)
    yield sampling_row("product, DeepCache off", meter.take(lambda: product(exact)), baseline, options)
    cached = replace(exact, cache_interval=CACHE)
    plain_cached = meter.take(lambda: plain.denoise(window.weights, *given, cached))
    yield sampling_row(f"plain, DeepCache {CACHE}", plain_cached, baseline, options)
    yield sampling_row(f"product, DeepCache {CACHE}", meter.take(lambda: product(cached)), baseline, options)


def sampling_row(name: str, taken: Taken, baseline: Taken, options: argparse.Namespace) -> Row:
    return {
        "sampling": name,
        "s/frame": taken.seconds / options.frames,
        "s/s": taken.seconds / options.frames * float(MODEL_RATE),
        "x plain": baseline.seconds / taken.seconds,
        "peak MB": taken.peak_bytes / MB,
        "difference": float((taken.result - baseline.result).abs().max() / baseline.result.abs().max()),
    }


@torch.no_grad()
def of_ladder(options: argparse.Namespace, window: Window) -> Iterator[Row]:
    """One do_cfg step, each way one change after the one above it; then parts of the last."""
    taken = in_turn(ladder(window), Meter(options.device), options.rounds)
    first = before = median(one.seconds for one in taken["plain"])
    for name, ones in taken.items():
        seconds = median(one.seconds for one in ones)
        peak = max(one.peak_bytes for one in ones) / MB
        row = {"one step": name, "s/frame": seconds / options.frames, "x plain": first / seconds}
        yield row | {"x above": before / seconds, "peak MB": peak}
        if not name.startswith(PART):
            before = seconds


def ladder(window: Window) -> dict[str, Work]:
    """Ways to compute one do_cfg step."""
    audio, unet = window.audio, window.unet
    x = torch.cat([window.noise.expand(-1, -1, audio.shape[1], -1, -1).to(audio), window.conditioning], dim=1)
    zeros, timestep = torch.zeros_like(audio), torch.tensor(TIMESTEP)
    audio_kv, silence_kv = unet.precompute_audio_kv(audio), unet.precompute_audio_kv(zeros)
    _, cached_features = unet(x, TIMESTEP, audio_kv, do_cfg=True)
    both = torch.cat([zeros, audio]), torch.cat([x, x])
    return {
        "plain": lambda: plain.unet(window.weights, both[1], timestep, both[0]),
        "our layers, a call for each pass": lambda: (
            unet(x, TIMESTEP, unet.precompute_audio_kv(zeros)),
            unet(x, TIMESTEP, unet.precompute_audio_kv(audio)),
        ),
        "+ audio keys and values once": lambda: (unet(x, TIMESTEP, silence_kv), unet(x, TIMESTEP, audio_kv)),
        "+ output bias for silence": lambda: (unet(x, TIMESTEP, None), unet(x, TIMESTEP, audio_kv)),
        "+ one call, shared part once": lambda: unet(x, TIMESTEP, audio_kv, do_cfg=True),
        f"{PART}shallow step": lambda: unet(x, TIMESTEP, audio_kv, cached_features, do_cfg=True),
        f"{PART}conv_in": lambda: unet.conv_in(fold(x)),
    }


@torch.no_grad()
def of_vae(options: argparse.Namespace, _: Window) -> Iterator[Row]:
    """A window's frames through the VAE: all in one call, and in the product's slices; at this size and twice it."""
    torch.manual_seed(0)
    vae = autoencoder_of(random_init.VAE_CHANNELS if options.tiny else FULL_VAE_CHANNELS, 1 if options.tiny else 2)()
    codec = DiffusersVAE(vae.eval()).to(options.device, options.dtype)
    for side in (options.side, 2 * options.side):
        shape = options.frames, LATENT_CHANNELS, side, side
        latents = torch.randn(shape).to(options.device, options.dtype)
        images = torch.rand(options.frames, 3, LATENT_STRIDE * side, LATENT_STRIDE * side).to(latents) * 2 - 1
        ways: dict[str, Work] = {
            "encode, plain": lambda images=images: plain.encode(codec.vae, images),
            "encode, product": lambda images=images: codec.encode(images),
            "decode, plain": lambda latents=latents: plain.decode(codec.vae, latents),
            "decode, product": lambda latents=latents: codec.decode(latents),
        }
        taken = in_turn(ways, Meter(options.device), options.rounds)
        yield from vae_rows(taken, LATENT_STRIDE * side, options.frames)


def vae_rows(taken: dict[str, list[Taken]], pixels: int, frames: int) -> Iterator[Row]:
    for name, ones in taken.items():
        seconds = median(one.seconds for one in ones)
        baseline = median(one.seconds for one in taken[f"{name.partition(',')[0]}, plain"])
        row = {"VAE": f"{name}, {pixels} px", "s/frame": seconds / frames, "frames/s": frames / seconds}
        yield row | {"x plain": baseline / seconds, "peak MB": max(one.peak_bytes for one in ones) / MB}


def shown(stage: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Print each row to stderr as soon as it is measured."""
    for row in rows:
        sys.stderr.write(f"{stage}: {json.dumps(row)}\n")
        yield row


def table(rows: list[Row]) -> str:
    """Markdown; numbers with four digits."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    for row in rows:
        cells = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
