"""What a machine with a GPU can tell within minutes: accuracy, speed and VRAM, beside the official computation.

Usage: python -m benchmarks.gpu [--device NAME] [--minutes 10] [--tiny] [--folder artifacts]     (or: make gpu)

1. Parity: recorded results of the official code, computed on the device in each precision. Errors against the records,
   and against float32 on the same device.
2. Official computation: `benchmarks.plain`, with DeepCache and without it, and this pack with the same weights.
3. Bench: all cases of `latentsync bench`, the most useful first, until the minutes are over.

It writes gpu.json and gpu.md after each result. ComfyUI's dynamic VRAM is left out: it needs a running ComfyUI.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from benchmarks import sampler
from latentsync import bench
from latentsync.cli.device import chosen_device
from latentsync.errors import LatentSyncError
from latentsync.models.constants import LATENT_STRIDE
from latentsync.weights import loader
from latentsync.weights.catalog import MODELS
from tests.parity import checks
from tests.support import tiny_networks
from tests.support.paths import GOLDEN, REPOSITORY

Row = dict[str, Any]

NO_ACCELERATOR = (
    "torch finds no accelerator on this machine, so nothing was measured. "
    'To try the command at toy size on the CPU, run: make gpu ARGS="--tiny"'
)
PARITY_FILES = ("unet", "denoise", "pipeline")
SHORTEST = ("f1", "steps5_g2_f3", "cached")  # a case of each file, for --tiny
PRECISIONS = sorted(bench.PRECISIONS, key=lambda precision: precision != "fp32")
"""The reference first."""


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    device = chosen_device(options.device)
    if device.type == "cpu" and not options.tiny:
        print(NO_ACCELERATOR)
        return 1
    started = monotonic()
    machine = bench.describe_machine(device)
    report: dict[str, Any] = {"machine": machine, "parity": [], "official": [], "bench": []}
    cases = bench.list_cases(quick=options.tiny)
    bench_rows: list[bench.Row] = []
    options.folder.mkdir(parents=True, exist_ok=True)

    def write() -> str:
        sections = {"Parity": report["parity"], "Official computation": report["official"]}
        text = "".join(f"## {title}\n\n{sampler.table(rows)}\n\n" for title, rows in sections.items() if rows)
        text += f"## Bench\n\n{bench.markdown(machine, bench_rows, tiny=options.tiny)}"
        (options.folder / "gpu.md").write_text(text, encoding="utf-8")
        (options.folder / "gpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return text

    for name, rows in (
        ("parity", parity_rows(device, tiny=options.tiny)),
        ("official", official_rows(device, tiny=options.tiny)),
    ):
        for row in rows:
            report[name].append(row)
            print(row, file=sys.stderr)
            write()
    for row in bench.run_cases(cases, device, tiny=options.tiny, minutes=options.minutes, started=started):
        bench_rows.append(row)
        report["bench"].append(row.to_json())
        if not row.is_skipped:
            print(row, file=sys.stderr)
            write()
    print(write())
    return 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", metavar="NAME", help="default: the accelerator that torch finds")
    parser.add_argument("--minutes", type=float, default=10, help="start no measurement that would end later")
    parser.add_argument("--tiny", action="store_true", help="toy size, also on a CPU")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "artifacts", help="for gpu.json and gpu.md")
    return parser.parse_args(arguments)


def parity_rows(device: torch.device, *, tiny: bool) -> Iterator[Row]:
    """The largest error of each recorded result in each precision, relative to the largest value of the record."""
    for file in PARITY_FILES:
        with np.load(GOLDEN / f"{file}.npz") as arrays:
            for case in json.loads(str(arrays["meta"])):
                if not tiny or case["name"] in SHORTEST:
                    yield from case_rows(file, case, arrays[case["name"]], device)


def case_rows(file: str, case: checks.Case, record: np.ndarray, device: torch.device) -> Iterator[Row]:
    reference = None
    for precision in PRECISIONS:
        row: Row = {"case": f"{file}/{case['name']}", "precision": precision, "against the record": ""}
        row |= {"against fp32": "", "note": ""}
        try:
            result = computed(case, precision, device).astype(np.float64)
        except (LatentSyncError, RuntimeError, MemoryError, TypeError) as error:
            yield row | {"note": str(error).partition("\n")[0]}
            continue
        reference = result if precision == "fp32" else reference
        size = float(np.abs(record).max())
        row["against the record"] = float(np.abs(result - record).max()) / size
        if reference is not None:
            row["against fp32"] = float(np.abs(result - reference).max()) / size
        yield row


def computed(case: checks.Case, precision: str, device: torch.device) -> np.ndarray:
    """The result of a case on the device: noise, latents, or the frames that were recorded."""
    stored = bench.PRECISIONS[precision]
    dtype = bench.computing_dtype(stored)
    state = tiny_networks.unet(case.get("layout", "unet_tiny")).state_dict()
    network = bench.unet_in({key: tensor.to(device) for key, tensor in state.items()}, stored, dtype)
    if case["kind"] == "pipeline":
        checkpoint = loader.Checkpoint(Path("vae_tiny"), dict(tiny_networks.vae().vae.state_dict()))
        codec = loader.load_vae(checkpoint).to(device, dtype)
        frames = list(checks.clip_frames(case, network, codec, device, dtype))
        return np.stack([frames[i] for i in case["keep"]])
    compute = {"forward": checks.predicted_noise, "denoise": checks.sampled_latents}[case["kind"]]
    return compute(case, network, device, dtype).numpy()


def official_rows(device: torch.device, *, tiny: bool) -> Iterator[Row]:
    """One window with 20 steps: seconds per second of video of the official computation and of this pack."""
    for version, spec in MODELS.items():
        side = spec.resolution // LATENT_STRIDE // (bench.TINY_DIVISOR if tiny else 1)
        arguments = ["--device", str(device), "--side", str(side), "--dtype", "float32" if tiny else "float16"]
        options = sampler.parsed([*arguments, *(["--tiny", "--steps", "4"] if tiny else [])])
        row: Row = {"version": version}
        try:
            for result in sampler.of_sampling(options, sampler.Window.from_options(options)):
                yield row | result
        except (LatentSyncError, RuntimeError, MemoryError) as error:
            print(f"{version}: {error}", file=sys.stderr)
        bench.free_memory(device)


if __name__ == "__main__":
    sys.exit(main())
