"""ComfyUI's modes on the pretend device: copies, waits and loads of each, and whether results equal the CPU's.

Usage: python -m tests.pretend_device [MODE ...] [--plant] [--stops N]

Prints a table and exits with 0. With --plant a tensor stays on the CPU: it exits with 1 and names the line.
With --stops it runs all nodes in a server, and stops them (see `pretend_server`).
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.sample_clip import make_sample
from tests.support import graphs, pretend_server
from tests.support.paths import REPOSITORY
from tests.support.pretend_comfyui import PretendComfyUI, leave_a_tensor_on_the_cpu, video_graph
from tests.support.pretend_dynamic_vram import Pages
from tests.support.synthetic_models import write_models

RESOLUTION = 64  # of the model, in pixels: at 256 a mode takes three times as long
SECONDS = 0.8  # of audio
WINDOWS = 2  # of 16 frames
MAX_WAITS = 8  # a window, with everything on the device
MAX_VAE_LOADS = 2  # a window
MAX_ERROR = 0.1  # of latents in fp8. fp16 and bf16 are closer
STEP_FILES = ("sampling/denoise", "sampling/schedulers", "models/unet", "models/layers")


@dataclass(frozen=True)
class Mode:
    """A way to start ComfyUI, and the results of the CPU that it must equal bit for bit.

    precision: of Load Model.
    equals: a key of `REFERENCES`.
    is_resident: weights stay on the device between windows. If not, each window waits for them.
    dynamic_bytes: see `PretendComfyUI`.
    """

    arguments: tuple[str, ...] = ("--fp32-vae",)
    precision: str = "fp32"
    equals: str = "fp32"
    is_resident: bool = True
    dynamic_bytes: float | None = None


@dataclass(frozen=True)
class Reference:
    """A run on the CPU.

    computed: dtype of the UNet. None leaves the choice to the nodes: float32 on a CPU.
    is_parted: both passes of guidance are computed one after the other.
    """

    arguments: tuple[str, ...] = ("--fp32-vae",)
    precision: str = "fp32"
    computed: torch.dtype | None = None
    is_parted: bool = False


HALF = ("--fp16-vae", "--fp16-intermediates")
BF16 = ("--bf16-vae", "--bf16-unet")
REFERENCES = {
    "fp32": Reference(),
    "fp8": Reference(precision="fp8"),
    "parted": Reference(is_parted=True),
    "fp16": Reference(HALF, "fp16", torch.float16),
    "bf16": Reference(BF16, "bf16", torch.bfloat16),
}
MODES = {
    "default": Mode(),
    "dynamic": Mode(dynamic_bytes=float("inf")),
    "dynamic-full": Mode(is_resident=False, dynamic_bytes=2**20),
    "lowvram": Mode(("--fp32-vae", "--lowvram")),
    "novram": Mode(("--fp32-vae", "--novram"), is_resident=False),
    "highvram": Mode(("--fp32-vae", "--highvram")),
    "gpu-only": Mode(("--fp32-vae", "--gpu-only")),
    "cpu-vae": Mode(("--cpu-vae",)),
    "fp8": Mode(("--fp32-vae", "--force-fp32"), "fp8", "fp8"),
    "fp8-unet": Mode(("--fp32-vae", "--force-fp32", "--fp8_e4m3fn-unet"), "auto", "fp8"),
    "half": Mode(HALF, "auto", "fp16"),
    "bf16": Mode(BF16, "auto", "bf16"),
    "deterministic": Mode(("--fp32-vae", "--deterministic"), equals="parted"),
    "sage": Mode(("--fp32-vae", "--use-sage-attention")),
}


@dataclass
class Report:
    """What one mode did, for the table. Counts are of one window, without the loading of weights.

    error: mean distance of the latents from those of float32 on the CPU, relative to their mean size.
    """

    mode: str
    vae_loads: float
    h2d: float
    d2h: float
    waits: float
    step_waits: int
    second_take_encodes: int
    equal: bool
    error: float
    oom: str
    left_bytes: int

    def faults(self) -> list[str]:
        checks = {
            "the VAE is loaded too often": self.vae_loads > MAX_VAE_LOADS,
            "too many waits": MODES[self.mode].is_resident and self.waits > MAX_WAITS,
            "a step waits": self.step_waits > 0,
            "a second take encodes crops": self.second_take_encodes > 0,
            "differs from the CPU": not self.equal,
            "is far from float32": self.error > MAX_ERROR,
            "out of memory ends badly": self.oom not in ("sentence", "smaller"),
            "memory is left": self.left_bytes > 0,
        }
        return [fault for fault, found in checks.items() if found]


def prepare(base: Path) -> None:
    """Models, a sample clip and the CPU's results, in a base directory of ComfyUI."""
    write_models(base / "models", resolution=RESOLUTION)
    make_sample(base / "input", SECONDS)


def reference(base: Path, name: str) -> None:
    """Run on the CPU, and keep the results in a file."""
    made = REFERENCES[name]
    comfyui = PretendComfyUI(base, ("--cpu", *made.arguments))
    comfyui.clips_at_once(1 if made.is_parted else 2)
    if made.computed is not None:
        comfyui.compute_in(made.computed)
    np.savez(base / f"{name}.npz", **comfyui.results(video_graph(f"cpu/{name}", precision=made.precision)))


def run_mode(name: str, base: Path) -> Report:
    mode = MODES[name]
    comfyui = PretendComfyUI(base, mode.arguments, mode.dynamic_bytes)
    device = comfyui.device
    assert device is not None
    first = video_graph(f"{name}/first", precision=mode.precision)
    with device.counting():
        results = comfyui.results(first)
        counts, vae_loads = device.counts.copy(), comfyui.loads.count("AutoencoderKL")
    ours = {
        kind: sum(
            count
            for (counted, site), count in counts.items()
            if counted == kind and site.startswith(("latentsync/", "nodes/")) and "audio/features" not in site
        )
        for kind in ("H2D", "D2H", "wait")
    }
    steps = sum(
        count for (kind, site), count in counts.items() if kind == "wait" and any(file in site for file in STEP_FILES)
    )
    expected, exact = np.load(base / f"{mode.equals}.npz"), np.load(base / "fp32.npz")
    equal = all(np.array_equal(results[key], expected[key]) for key in expected)
    error = np.abs(results["latents"] - exact["latents"]).mean() / np.abs(exact["latents"]).mean()
    comfyui.encoded_images = 0
    with device.counting():
        comfyui.run(graphs.changed(first, "LatentSyncSampler", seed=2))
        encodes, allocations = comfyui.encoded_images, device.allocations
    oom = out_of_memory(comfyui, graphs.changed(first, "LatentSyncSampler", seed=3), allocations // 2)
    comfyui.unload()
    gc.collect()
    assert mode.dynamic_bytes in (None, float("inf")) or Pages.refused, "the mode shows nothing: all pages fit"
    return Report(
        name,
        vae_loads / WINDOWS,
        ours["H2D"] / WINDOWS,
        ours["D2H"] / WINDOWS,
        ours["wait"] / WINDOWS,
        steps,
        encodes,
        equal,
        float(error),
        oom,
        device.used_bytes,
    )


def out_of_memory(comfyui: PretendComfyUI, graph: graphs.Graph, allocation: int) -> str:
    """How a run ends in which one allocation fails."""
    assert comfyui.device is not None
    with comfyui.device.counting(oom_at=frozenset({allocation})):
        try:
            comfyui.run(graph)
        except RuntimeError as error:
            return "sentence" if "Out of memory" in str(error) else f"error: {error}"
    return "smaller" if comfyui.device.failed_at else "nothing failed"


def stops(base: Path, count: int) -> list[str]:
    """What is wrong after runs of a server that are stopped at allocations and checks. Prints how each run ends."""
    pretend_server.prepare(base)
    faults: list[str] = []
    with pretend_server.PretendServer(base) as server:
        for kind in pretend_server.ENDS:
            for end, found in pretend_server.stopped_runs(server, kind, count):
                print(end, *found, sep="\n  ", flush=True)
                faults += found
    return faults


def plant(base: Path) -> str:
    """The line that is named when a tensor stays on the CPU."""
    comfyui = PretendComfyUI(base, MODES["default"].arguments)
    assert comfyui.device is not None
    with comfyui.device.counting():
        leave_a_tensor_on_the_cpu()
        try:
            comfyui.run(video_graph("planted", precision="fp32"))
        except RuntimeError as error:
            return f"{comfyui.device.failed_at}: {error}"
    return ""


def child(base: Path, *arguments: str) -> str:
    """The last line of this command in a process of its own: ComfyUI reads its options once."""
    command = [sys.executable, "-m", "tests.pretend_device", "--base", str(base), *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    return done.stdout.strip().splitlines()[-1]


def table(reports: list[Report]) -> str:
    names = ["mode", "VAE loads", "H2D", "D2H", "waits", "in steps", "second take", "equal", "error"]
    names += ["OOM", "left", "faults"]
    rows = [names]
    for report in reports:
        values: list[Any] = list(asdict(report).values())
        rows.append([*(f"{value:.2g}" if isinstance(value, float) else str(value) for value in values)])
        rows[-1].append("; ".join(report.faults()) or "none")
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def reports(base: Path, modes: list[str]) -> list[Report]:
    prepare(base)
    for name in sorted({"fp32", *(MODES[mode].equals for mode in modes)}):
        child(base, "--child", "reference", name)
    made: list[Report] = []
    for mode in modes:
        made.append(Report(**json.loads(child(base, "--child", mode))))
        print(mode, asdict(made[-1]), file=sys.stderr, flush=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modes", nargs="*", metavar="MODE", help=f"default: {', '.join(MODES)}")
    parser.add_argument("--plant", action="store_true", help="leave a tensor on the CPU")
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--stops", type=int, metavar="N", help="stop N runs of a server by OOM, and N by a cancel")
    args = parser.parse_args()
    if args.child == "reference":
        reference(args.base, *args.modes)
        print("done")
    elif args.child == "plant":
        print(plant(args.base))
    elif args.child:
        print(json.dumps(asdict(run_mode(args.child, args.base))))
    else:
        with tempfile.TemporaryDirectory(prefix="pretend device ") as folder:
            base = args.base or Path(folder)
            if args.plant:
                prepare(base)
                found = child(base, "--child", "plant")
                print(found or "the planted fault was not found")
                return 1
            if args.stops:
                return int(bool(stops(base, args.stops)))
            made = reports(base, args.modes or list(MODES))
            print(table(made))
            return int(any(report.faults() for report in made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
