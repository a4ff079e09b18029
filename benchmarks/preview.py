"""What the live preview of the Sampler costs: measured with small networks, and counted for the full size.

Usage: python -m benchmarks.preview [--model miniature] [--seconds 3] [--rounds 5]

Measured: ComfyUI's own executor runs the video workflow in this process, on the CPU, and only the Sampler and Video
Combine run again in each round. The time of the preview is that of its text, its decoded image, and the JPEG that
ComfyUI's server makes of it. Counted: the FLOPs of the networks at full size, as in `benchmarks.roofline`. A run
decodes 16 images a window, and the preview one more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from PIL import ImageOps

from benchmarks.footprint import Networks
from benchmarks.roofline import Stages, count_stages
from latentsync.models.constants import LATENT_STRIDE, WINDOW_FRAMES
from latentsync.sampling.settings import SPEEDS, SamplerSettings
from latentsync.weights import miniature
from latentsync.weights.catalog import MODELS
from scripts.sample_clip import make_sample
from tests.support import graphs
from tests.support.pretend_comfyui import PretendComfyUI, pack_module
from tests.support.synthetic_models import write_models

RESOLUTION = miniature.RESOLUTION
MODELS_OF = {"miniature": miniature.write_models, "tiny": partial(write_models, resolution=RESOLUTION)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the live preview costs.")
    parser.add_argument("--model", choices=MODELS_OF, default="miniature", help="of the measured run")
    parser.add_argument("--seconds", type=float, default=3.0, help="of the recording (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts (default: %(default)s)")
    options = parser.parse_args()
    sys.stdout.write("| model | face crop | speed | preview / run | how |\n|---|---|---|---|---|\n")
    networks = Networks.on_meta(tiny=False)
    for version, spec in MODELS.items():
        stages = count_stages(networks, spec.resolution // LATENT_STRIDE)
        for speed in SPEEDS:
            share = counted_share(stages, SamplerSettings().at_speed(speed))
            sys.stdout.write(f"| {version} | {spec.resolution} | {speed} | {share:.2%} | counted |\n")
    share = measured_share(options.model, options.seconds, options.rounds)
    sys.stdout.write(f"| {options.model} | {RESOLUTION} | balanced | {share:.2%} | measured |\n")


def counted_share(stages: Stages, settings: SamplerSettings) -> float:
    """FLOPs of one decoded image, as a share of those of a window of the run."""
    return stages.decode.flops / (WINDOW_FRAMES * stages.frame(settings).flops)


def measured_share(model: str, seconds: float, rounds: int) -> float:
    """Median of the preview's share of the time of a prompt."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        MODELS_OF[model](base / "models")
        sample = make_sample(base / "input", seconds)
        comfyui = PretendComfyUI(base, ("--cpu", "--preview-method", "auto"))
        spent: list[float] = []
        time_previews(pack_module(".nodes.live_preview").LivePreview, spent)
        graph = graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name)
        comfyui.run(graph)
        shares = []
        for seed in range(rounds):
            spent.clear()
            start = time.perf_counter()
            comfyui.run(graphs.changed(graph, "LatentSyncSampler", seed=seed))
            shares.append(sum(spent) / (time.perf_counter() - start))
        return median(shares)


def time_previews(preview: Any, spent: list[float]) -> None:
    """Add the seconds of each call of a LivePreview to a list."""
    call = preview.__call__

    def timed(self: Any, *given: Any) -> Any:
        start = time.perf_counter()
        made = call(self, *given)
        if made is not None:
            kind, image, largest = made
            ImageOps.contain(image, (largest, largest)).save(BytesIO(), kind, quality=95)
        spent.append(time.perf_counter() - start)
        return made

    preview.__call__ = timed


if __name__ == "__main__":
    main()
