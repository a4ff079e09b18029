"""Estimated seconds of the three presets on four GPUs, from counted operations: a model, not a measurement.

The networks run at full size on torch's meta device through the product's own code. Each operation adds its FLOPs and
the bytes that it reads and writes. Attention counts as one fused kernel.

A stage takes FLOPs / (peak * share) + NOT_HIDDEN * bytes / (bandwidth * 80 %). The shares are assumptions, see `GPUS`.

Usage: python -m benchmarks.roofline [--tiny]
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.footprint import DTYPE, SIDES, Networks
from latentsync.models.constants import (
    AUDIO_POSITIONS,
    AUDIO_STATES,
    AUDIO_WIDTH,
    LATENT_CHANNELS,
    LATENT_STRIDE,
    WINDOW_FRAMES,
)
from latentsync.models.protocols import AudioKV
from latentsync.models.unet import INPUT_CHANNELS
from latentsync.oom import BatchLimit
from latentsync.sampling.denoise import denoise
from latentsync.sampling.sampler import CFG_BATCH
from latentsync.sampling.settings import SPEEDS, SamplerSettings
from latentsync.video.timeline import MODEL_RATE

BANDWIDTH_SHARE = 0.8  # of the memory bandwidth that kernels reach
NOT_HIDDEN = 2 / 3  # of the bytes: the others move while the GPU computes
TERA = 1e12
PASS_NAMES = {
    (True, False): "full with guidance",
    (True, True): "shallow with guidance",
    (False, False): "full without guidance",
    (False, True): "shallow without guidance",
}


class Gpu(NamedTuple):
    """Peak of dense fp16 matrix products with fp32 sums, and the share of it that kernels reach."""

    name: str
    tflops: float
    share: float
    tb_per_second: float


GPUS = (
    Gpu("RTX 3060", 25.5, 0.7, 0.36),
    Gpu("RTX 4090", 165, 0.7, 1.008),
    Gpu("RTX 5090", 209, 0.7, 1.792),
    Gpu("H100", 989, 0.45, 3.35),
)


@dataclass
class Cost:
    """FLOPs (a multiplication and an addition are two), and bytes read and written."""

    flops: float = 0
    size: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.size + other.size)

    def seconds(self, gpu: Gpu) -> float:
        arithmetic = self.flops / (gpu.tflops * TERA * gpu.share)
        return arithmetic + NOT_HIDDEN * self.size / (gpu.tb_per_second * TERA * BANDWIDTH_SHARE)


class Counter(TorchDispatchMode):
    """Adds up the cost of every operation while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.cost = Cost()

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func._schema.name.startswith("aten::empty"):
            return result
        formula = flop_registry.get(func._overloadpacket)
        flops = formula(*args, **(kwargs or {}), out_val=result) if formula else 0
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor) and x.is_meta]
        self.cost += Cost(flops, sum(x.numel() * x.element_size() for x in tensors))
        return result


class FusedAttention(TorchFunctionMode):
    """Attention as a fused kernel: reads queries, keys and values, and writes the output."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args[:3]
        size = sum(x.numel() * x.element_size() for x in (query, key, value, query))
        self._counter.cost += Cost(4 * query.numel() * key.shape[-2], size)
        return torch.empty_like(query)


def counted(function: Callable[[], object]) -> Cost:
    """The cost of a call."""
    with Counter() as counter, FusedAttention(counter), torch.no_grad():
        function()
    return counter.cost


class PassCounter:
    """A denoiser that computes nothing, and counts its passes of a window: (with guidance?, shallow?) -> number."""

    def __init__(self) -> None:
        self.passes: collections.Counter[tuple[bool, bool]] = collections.Counter()

    def precompute_audio_kv(self, audio: Tensor) -> AudioKV:  # noqa: ARG002 - the protocol's
        return []

    def __call__(
        self,
        x: Tensor,
        timestep: float,  # noqa: ARG002
        audio_kv: AudioKV | None,  # noqa: ARG002
        cached_features: Tensor | None = None,
        *,
        do_cfg: bool = False,
    ) -> tuple[Tensor, Tensor]:
        self.passes[do_cfg, cached_features is not None] += 1
        batch = len(x) * (1 + do_cfg)
        return torch.zeros(batch, LATENT_CHANNELS, *x.shape[2:]), torch.zeros(batch)


def passes_of(settings: SamplerSettings) -> Mapping[tuple[bool, bool], int]:
    """The passes of one window."""
    unet = PassCounter()
    noise, conditioning = torch.zeros(1, LATENT_CHANNELS, 1, 1, 1), torch.zeros(1, 2 * LATENT_CHANNELS + 1, 1, 1, 1)
    for _ in denoise(unet, noise, conditioning, torch.zeros(1), settings, BatchLimit(CFG_BATCH, "the UNet")):
        pass
    return unet.passes


class Stages(NamedTuple):
    """The costs of a version: a pass of the UNet (with guidance?, shallow?), and the VAE of one image."""

    passes: dict[tuple[bool, bool], Cost]
    encode: Cost
    decode: Cost

    def window(self, settings: SamplerSettings) -> Cost:
        """All passes of one window."""
        costs = (self.passes[kind] for kind, count in passes_of(settings).items() for _ in range(count))
        return sum(costs, Cost())

    def frame(self, settings: SamplerSettings) -> Cost:
        """The cost of one output frame: a sixteenth of a window, two encoded images and a decoded image."""
        images = self.encode + self.encode + self.decode
        window = self.window(settings)
        return Cost(window.flops / WINDOW_FRAMES, window.size / WINDOW_FRAMES) + images


@torch.no_grad()
def count_stages(networks: Networks, side: int) -> Stages:
    """Counts one pass of each kind, and the VAE. `side` is that of the latents."""
    empty = partial(torch.empty, device="meta", dtype=DTYPE)
    x = empty(1, INPUT_CHANNELS, WINDOW_FRAMES, side, side)
    audio_kv = networks.unet.precompute_audio_kv(empty(1, WINDOW_FRAMES, AUDIO_POSITIONS * AUDIO_STATES, AUDIO_WIDTH))
    passes: dict[tuple[bool, bool], Cost] = {}
    for do_cfg in (True, False):
        features: list[Tensor | None] = [None]

        def run(do_cfg: bool = do_cfg, features: list[Tensor | None] = features) -> None:
            features[:] = networks.unet(x, 501.0, audio_kv, features[0], do_cfg=do_cfg)[1:]

        passes[do_cfg, False] = counted(run)
        passes[do_cfg, True] = counted(run)
    vae: Any = networks.vae
    encode = counted(lambda: vae.encode(empty(1, 3, LATENT_STRIDE * side, LATENT_STRIDE * side)))
    return Stages(passes, encode, counted(lambda: vae.decode(empty(1, LATENT_CHANNELS, side, side))))


def tables(versions: dict[str, Stages]) -> str:
    """Markdown: what was counted, and the estimates."""
    lines = ["| one window of 16 frames | " + " | ".join(f"{name}, TFLOP | {name}, GB" for name in versions) + " |"]
    lines += ["|---" * (1 + 2 * len(versions)) + "|"]

    def add_row(name: str, costs: Iterable[Cost]) -> None:
        cells = (f"{cost.flops / TERA:.3g} | {cost.size / 1e9:.3g}" for cost in costs)
        lines.append(f"| {name} | {' | '.join(cells)} |")

    for kind, name in PASS_NAMES.items():
        add_row(name, (stages.passes[kind] for stages in versions.values()))
    add_row("VAE, encode one image", (stages.encode for stages in versions.values()))
    add_row("VAE, decode one image", (stages.decode for stages in versions.values()))
    presets = {speed: SamplerSettings().at_speed(speed) for speed in SPEEDS}
    for speed, settings in presets.items():
        parts = (f"{count} {PASS_NAMES[kind]}" for kind, count in passes_of(settings).items())
        add_row(f"`{speed}`: {', '.join(parts)}", (stages.window(settings) for stages in versions.values()))
    columns = [(name, speed) for name in versions for speed in SPEEDS]
    lines += ["", "| GPU | " + " | ".join(f"{name} `{speed}`" for name, speed in columns) + " |"]
    lines += ["|---" * (1 + len(columns)) + "|"]
    for gpu in GPUS:
        cells = (f"{MODEL_RATE * versions[name].frame(presets[speed]).seconds(gpu):.2g} s" for name, speed in columns)
        lines.append(f"| {gpu.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="count the small untrained networks instead")
    options = parser.parse_args(arguments)
    networks = Networks.on_meta(tiny=options.tiny)
    sys.stdout.write(tables({name: count_stages(networks, side) for name, side in sorted(SIDES.items())}) + "\n")


if __name__ == "__main__":
    main()
