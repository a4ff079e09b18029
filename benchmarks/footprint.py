"""How much memory sampling takes on a device, counted without one: a model, not a measurement.

The networks run at full size on torch's meta device, in fp16, through the product's own sampler and codec; every
operation tells what storage it makes, and each storage is counted once, from then until it dies. What kernels use
inside (workspaces of convolutions and matrix products), what the allocator rounds up or keeps, and the runtime's own
few hundred MB are not in it. Attention counts as a fused kernel, the VAE's, too: its output, and no matrix of scores.

Usage: python -m benchmarks.footprint [--tiny] [--frames 16] [--json benchmarks/footprint.json]

fp8 rows: matrices stored in one byte a weight, and one matrix at a time cast to fp16. GB are 10^9 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from latentsync.bench import FULL_VAE_CHANNELS
from latentsync.models import vae as codecs
from latentsync.models.constants import (
    AUDIO_POSITIONS,
    AUDIO_STATES,
    AUDIO_WIDTH,
    LATENT_CHANNELS,
    LATENT_STRIDE,
    WINDOW_FRAMES,
)
from latentsync.models.unet import UNet, UNetConfig
from latentsync.models.vae import DiffusersVAE, autoencoder_of
from latentsync.models.whisper import whisper_encoder
from latentsync.oom import BatchLimit
from latentsync.sampling.denoise import denoise
from latentsync.sampling.sampler import CFG_BATCH
from latentsync.sampling.settings import SamplerSettings
from latentsync.weights import random_init

GB = 1e9
DTYPE = torch.float16
SIDES = {"1.6": 64, "1.5": 32}  # of the latents
WAYS = {"default": (CFG_BATCH, codecs.SLICE_IMAGES), "low memory": (1, 1)}  # clips in the UNet, images in the VAE
LIMITS_GB = {("1.6", "default"): 6.0, ("1.5", "default"): 3.6, ("1.6", "low memory"): 4.5}
SHOWN = 8  # kinds of tensors that are named of a peak
SETTINGS = SamplerSettings(num_inference_steps=3, cache_interval=2)  # the first step and the third are full


class Held(NamedTuple):
    """A storage: its size, and the module and operation that made it."""

    size: int
    maker: str


@dataclass
class Peak:
    """The most bytes that lived at once, in which module and operation, and what lived then."""

    size: int = 0
    where: str = ""
    held: tuple[Held, ...] = ()

    def to_json(self) -> dict[str, Any]:
        count: Counter[str] = Counter()
        for size, maker in self.held:
            count[maker] += size
        return {
            "GB": self.size / GB,
            "in": self.where,
            "GB by maker": {maker: size / GB for maker, size in count.most_common(SHOWN)},
        }


class Live(TorchDispatchMode):
    """Counts the storages on the meta device that are made while it is on.

    Args:
        networks: by name; their weights do not count, their modules name what is made.
    """

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        self.held: dict[int, Held] = {}
        self.size, self.peak = 0, Peak()
        self._modules: list[str] = []
        self._weights = {
            tensor.untyped_storage()._cdata for network in networks.values() for tensor in network.state_dict().values()
        }
        for name, network in networks.items():
            for path, module in network.named_modules(prefix=name):
                module.register_forward_pre_hook(lambda *_, path=path: self._modules.append(path))
                module.register_forward_hook(lambda *_: self._left())

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._count(tensor.untyped_storage(), f"{(self._modules or ['sampler'])[-1]}: {func}")
        return made

    def over(self, work: Callable[[], object]) -> Peak:
        """The peak while `work` runs, of what lives already included."""
        self.peak = Peak()
        work()
        return self.peak

    def _count(self, storage: torch.UntypedStorage, maker: str) -> None:
        key = storage._cdata
        if key in self.held or key in self._weights:
            return
        self.held[key] = Held(storage.nbytes(), maker)
        self.size += storage.nbytes()
        weakref.finalize(storage, self._forget, key)
        if self.size > self.peak.size:
            self.peak = Peak(self.size, maker, tuple(self.held.values()))

    def _forget(self, key: int) -> None:
        self.size -= self.held.pop(key).size

    def _left(self) -> None:
        self._modules.pop()


class Fused(TorchFunctionMode):
    """Attention as a fused kernel computes it: nothing but an output, laid out as the query."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class Networks(NamedTuple):
    """On the meta device; the UNet and the VAE in fp16, Whisper's encoder in float32 as the product keeps it."""

    unet: UNet
    vae: nn.Module
    whisper: nn.Module

    @classmethod
    def on_meta(cls, *, tiny: bool) -> Networks:
        channels, layers = (random_init.VAE_CHANNELS, 1) if tiny else (FULL_VAE_CHANNELS, 2)
        autoencoder = autoencoder_of(channels, layers)
        with torch.device("meta"):
            unet, vae = UNet(random_init.UNET_CONFIG if tiny else UNetConfig()), autoencoder()
        # not made on the meta device, where its tables take torch seconds
        whisper = whisper_encoder(random_init.WHISPER_DIMS)().to("meta")
        return cls(unet.to("meta", DTYPE).eval(), nn.Module.to(vae, dtype=DTYPE).eval(), whisper)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Count the memory of sampling on a device, without one.")
    parser.add_argument("--tiny", action="store_true", help="the small untrained networks instead of full-size ones")
    parser.add_argument("--frames", type=int, default=WINDOW_FRAMES, help="of a window")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"), help="also written here")
    options = parser.parse_args(arguments)
    networks = Networks.on_meta(tiny=options.tiny)
    weights = {name: of_weights(network) for name, network in networks._asdict().items()}
    weights["unet, fp8"] = of_weights(networks.unet, fp8=True)
    phases = {version: of_phases(networks, side, options.frames) for version, side in SIDES.items()}
    rows = [row for version in SIDES for row in totals(version, weights, phases[version])]
    activations = {version: {name: peak.to_json() for name, peak in peaks.items()} for version, peaks in phases.items()}
    report = {"weights_bytes": weights, "totals": rows, "phases": activations}
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{tables(weights, rows, activations)}\n")


def of_weights(network: nn.Module, *, fp8: bool = False) -> int:
    """Bytes; with fp8 matrices take one each, and one matrix at a time stands in fp16 besides."""
    tensors = list(network.state_dict().values())
    if not fp8:
        return sum(tensor.nbytes for tensor in tensors)
    matrices = [tensor.nbytes for tensor in tensors if tensor.ndim > 1]
    return sum(tensor.nbytes for tensor in tensors) - sum(matrices) // 2 + max(matrices)


def of_phases(networks: Networks, side: int, frames: int) -> dict[str, Peak]:
    """The peaks of activations: of the sampler's steps and between them, and of the VAE."""
    peaks: dict[str, Peak] = {}
    for clips in sorted({clips for clips, _ in WAYS.values()}, reverse=True):
        peaks |= {f"{name}, {clips} at once": peak for name, peak in of_steps(networks.unet, side, frames, clips)}
    for images in (4, 2, 1):
        peaks |= {f"VAE {name}, {images} at once": peak for name, peak in of_codec(networks.vae, side, frames, images)}
    return peaks


def of_steps(unet: UNet, side: int, frames: int, clips: int) -> list[tuple[str, Peak]]:
    """Of guided steps of one window, `clips` passes at once; what lives between steps is in each."""
    empty = partial(torch.empty, device="meta")
    with Live(unet=unet) as live, Fused():
        noise = empty(1, LATENT_CHANNELS, 1, side, side)
        conditioning = empty(1, 2 * LATENT_CHANNELS + 1, frames, side, side, dtype=DTYPE)
        audio = empty(1, frames, AUDIO_POSITIONS * AUDIO_STATES, AUDIO_WIDTH, dtype=DTYPE)
        steps = denoise(unet, noise, conditioning, audio, SETTINGS, BatchLimit(clips, "the UNet"))
        full = live.over(lambda: next(steps))
        between = Peak(live.size, "between steps", tuple(live.held.values()))
        shallow = live.over(lambda: next(steps))
        again = live.over(lambda: next(steps))
    return [
        ("full step", max(full, again, key=lambda peak: peak.size)),
        ("shallow step", shallow),
        ("between steps", between),
    ]


def of_codec(vae: nn.Module, side: int, frames: int, images: int) -> list[tuple[str, Peak]]:
    """Of a window's encoding and decoding, so many images at once; the results are in it, the frames given are not."""
    pixels = LATENT_STRIDE * side
    pictures, latents = torch.empty(frames, 3, pixels, pixels), torch.empty(frames, LATENT_CHANNELS, side, side)
    with Live(vae=vae) as live, Fused(), patch.object(codecs, "SLICE_IMAGES", images):
        codec = DiffusersVAE(vae)
        return [
            ("encode", live.over(lambda: codec.encode(pictures))),
            ("decode", live.over(lambda: codec.decode(latents))),
        ]


def totals(version: str, weights: dict[str, int], peaks: dict[str, Peak]) -> list[dict[str, Any]]:
    """The peak of a run by precision and way: with every network resident, and with only the one that works."""
    rows: list[dict[str, Any]] = []
    for precision, unet in (("fp16", weights["unet"]), ("fp8", weights["unet, fp8"])):
        for way, (clips, images) in WAYS.items():
            steps = peaks[f"full step, {clips} at once"].size
            codec = max(peaks[f"VAE {name}, {images} at once"].size for name in ("encode", "decode"))
            resident = (unet + weights["vae"] + weights["whisper"] + max(steps, codec)) / GB
            active = max(unet + steps, weights["vae"] + codec) / GB
            limit = LIMITS_GB.get((version, way))
            verdict = "" if limit is None else f"{'ok' if resident < limit else 'over'} ({limit:g} GB)"
            rows.append(
                {"model": version, "precision": precision, "way": way, "all GB": resident, "active GB": active}
                | {"limit": verdict}
            )
    return rows


def tables(weights: dict[str, int], rows: list[dict[str, Any]], activations: dict[str, dict[str, Any]]) -> str:
    """Markdown: weights, peaks of activations, sums."""
    lines = ["Counted on tensors, not measured on a device; GB are 10^9 bytes.", "", "| weights | GB |", "|---|---|"]
    lines += [f"| {name} | {size / GB:.3f} |" for name, size in weights.items()]
    lines += [
        "",
        "| activations, GB | " + " | ".join(activations) + " | peak of the first in |",
        "|---|" + "---|" * (len(activations) + 1),
    ]
    first, *_ = activations.values()
    for phase, peak in first.items():
        cells = [f"{peaks[phase]['GB']:.3f}" for peaks in activations.values()]
        lines.append(f"| {phase} | {' | '.join(cells)} | {peak['in']} |")
    lines += [
        "",
        "| model | precision | way | all resident, GB | only the active, GB | limit |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shown = (f"{value:.2f}" if isinstance(value, float) else value for value in row.values())
        lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
