"""How long a UNet takes to load, and how much memory: converted safetensors against the official fp32 pickle.

Writes untrained weights of the full size (1.27 G parameters) into a temporary folder (7.6 GB), loads each file in
processes of its own, and prints a table. To load means: until the network stands with its weights in fp16. What is
mapped is read from the disk when it is first touched: one byte of every page is touched after, and told apart.

Usage: python -m benchmarks.loading [--runs 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PAGE_BYTES = 4096
PICKLE, CONVERTED = "latentsync_unet.pt", "latentsync_unet.safetensors"


class Measured(NamedTuple):
    """One load in a fresh process: seconds of it, of touching every page then, and the peak of resident memory."""

    load_seconds: float
    touch_seconds: float
    peak_bytes: int


def write_files(folder: Path) -> None:
    """The same weights as the official pickle and as our safetensors."""
    from latentsync.progress import run
    from latentsync.weights.convert import convert

    write_pickle(folder / PICKLE)
    run(convert(folder / PICKLE, folder / CONVERTED, "fp16", "1.6"))


def write_pickle(path: Path) -> None:
    """Numbers of the usual size in the layout of the official file."""
    import torch

    from latentsync.models.unet import UNet
    from latentsync.weights.loader import meta_shapes

    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)) * 0.02

    def filled(shape: tuple[int, ...]) -> torch.Tensor:
        count = math.prod(shape)
        return block.repeat(-(-count // len(block)))[:count].reshape(shape).clone()

    torch.save({"global_step": 0, "state_dict": {key: filled(shape) for key, shape in meta_shapes(UNet).items()}}, path)


def load(path: Path) -> Measured:
    """Load a file as fp16 and touch every page of its weights, in this process."""
    import torch

    from latentsync.weights import loader

    before, start = resident_bytes("VmRSS"), time.perf_counter()
    unet = loader.load_unet(path, dtype=torch.float16)
    loaded = time.perf_counter()
    for tensor in unet.state_dict().values():
        tensor.flatten().view(torch.uint8)[::PAGE_BYTES].sum()
    return Measured(loaded - start, time.perf_counter() - loaded, resident_bytes("VmHWM") - before)


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (at most so far) of this process, as Linux counts them: mapped pages included."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def measure(path: Path) -> Measured:
    """`load` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.loading", "--load", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(*json.loads(done.stdout))


def compare(folder: Path, runs: int) -> None:
    """Alternate the two files and print medians."""
    paths = [folder / CONVERTED, folder / PICKLE]
    for path in paths:
        measure(path)
    rounds = [[measure(path) for path in paths] for _ in range(runs)]
    print("Medians:\n\n| file | MB | load s | touch s | peak MB | peak / file |\n|---|---|---|---|---|---|")
    for path, results in zip(paths, zip(*rounds, strict=True), strict=True):
        size, peak = path.stat().st_size, statistics.median(result.peak_bytes for result in results)
        load_seconds = statistics.median(result.load_seconds for result in results)
        touch_seconds = statistics.median(result.touch_seconds for result in results)
        print(
            f"| {path.name} | {size / 1e6:,.0f} | {load_seconds:.2f} | {touch_seconds:.2f} | {peak / 1e6:,.0f} "
            f"| {peak / size:.2f} |"
        )
    for what, field in (("To load", (0,)), ("To load and touch", (0, 1))):
        print(f"{what}: the pickle takes {slower(rounds, field)}")


def slower(rounds: list[list[Measured]], fields: tuple[int, ...]) -> str:
    """How many times as long the pickle takes, pair by pair, counting these fields."""
    seconds = [[sum(result[field] for field in fields) for result in results] for results in rounds]
    ratios = [pickle / converted for converted, pickle in seconds]
    return f"{statistics.median(ratios):.1f} times as long (from {min(ratios):.1f} to {max(ratios):.1f})."


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the loading of a full-size UNet.")
    parser.add_argument("--runs", type=int, default=5, help="loads of each file that count")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load(arguments.load)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write_files(Path(folder))
        compare(Path(folder), arguments.runs)


if __name__ == "__main__":
    main()
