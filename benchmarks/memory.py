"""Memory over time, for clips of different lengths: it must not grow with them.

Each run is a process of its own, watched from outside every two seconds: the command line, or a ComfyUI that runs the
VIDEO workflow. The sampler's networks can be replaced by stand-ins that cost nothing (`--networks stand-in`), since
they work on 16 frames at a time whatever the length; all else is the product's own: reading, finding the face,
listening, cropping, blending, encoding.

Usage: python -m benchmarks.memory VIDEO SOUND.wav --model face_landmarker.task --minutes 1 10
       [--route command-line comfyui] [--networks synthetic] [--crf 18] [--out benchmarks/memory]
Linux only: resident memory is read from /proc. Writes OUT.json and OUT.png, prints a table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from benchmarks.media import loop_sound, loop_video
from latentsync.models.constants import LATENT_CHANNELS, LATENT_STRIDE
from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import FACE_LANDMARKER, MODELS
from scripts.comfyui import PACK, ComfyUI
from tests.support.synthetic_models import write_models

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = {"synthetic": "latentsync", "stand-in": "benchmarks.stand_in"}
WATCH_SECONDS = 2.0
LATENT_BYTES = LATENT_CHANNELS * (MODELS["1.5"].resolution // LATENT_STRIDE) ** 2 * 2  # of one frame, fp16
LONGEST_RUN_SECONDS = 6 * 3600.0


@dataclass
class Run:
    """Resident memory of one run.

    seconds: since its start.
    resident_mb: at those instants, as Linux counts it.
    latents_mb: the share of it that grows with the clip by design, below 256 MB.
    """

    minutes: float
    networks: str
    route: str
    seconds: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    latents_mb: float = 0.0


def main() -> None:
    options = _options()
    runs: list[Run] = []
    for route, minutes in product(options.route, options.minutes):
        runs.append(_measure(options, route, minutes))
        _save(options.out, runs)  # each may take half an hour: none is to be lost with a later one
    sys.stdout.write("| route | networks | clip | took | peak resident | without latents |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for run in runs:
        took, peak = f"{run.seconds[-1]:.0f} s", f"{run.peak_mb:.0f} MB"
        aside = f"{run.peak_mb - run.latents_mb:.0f} MB"
        sys.stdout.write(f"| {run.route} | {run.networks} | {run.minutes:g} min | {took} | {peak} | {aside} |\n")


def _measure(options: argparse.Namespace, route: str, minutes: float) -> Run:
    run = Run(minutes, options.networks, route)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "input").mkdir()
        loop_video(options.video, base / "input" / "video.mp4", 60 * minutes)
        loop_sound(options.sound, base / "input" / "sound.wav", 60 * minutes)
        write_models(base / "models")
        shutil.copyfile(options.model, base / "models" / FACE_LANDMARKER.path)
        ROUTES[route](base, options, run)
        run.latents_mb = VideoFile(base / "input" / "video.mp4").frame_count * LATENT_BYTES / 2**20
    return run


def _by_command_line(base: Path, options: argparse.Namespace, run: Run) -> None:
    command = [sys.executable, "-m", MODULES[options.networks], "run"]
    command += [str(base / "input" / "video.mp4"), str(base / "input" / "sound.wav"), "-o", str(base / "out.mp4")]
    command += ["--models", str(base / "models"), "--miniature", "--steps", "1", "--crf", str(options.crf)]
    command += ["--no-save-record"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    start = time.monotonic()
    while process.poll() is None:
        _watch(process.pid, run, time.monotonic() - start)
        time.sleep(WATCH_SECONDS)
    if process.returncode:
        sys.exit(f"the run of {run.minutes:g} min failed with status {process.returncode}")


def _through_comfyui(base: Path, options: argparse.Namespace, run: Run) -> None:
    graph = _graph(options)
    packs = {PACK: REPOSITORY, "latentsync-benchmark-nodes": REPOSITORY / "benchmarks" / "stand_in_nodes"}
    with ComfyUI(base, packs=packs) as server:
        start = time.monotonic()
        working = threading.Thread(target=server.run, args=(graph, LONGEST_RUN_SECONDS))
        working.start()
        while working.is_alive():
            _watch(server.pid, run, time.monotonic() - start)
            time.sleep(WATCH_SECONDS)
        if not list(server.output.rglob("*.mp4")):
            sys.exit(f"ComfyUI made no video of {run.minutes:g} min; its log:\n{server.log}")


def _graph(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """The VIDEO workflow, at one step, with the model's stand-in between."""
    stored = (REPOSITORY / "api" / "lipsync_video.json").read_text(encoding="utf-8")
    graph = json.loads(stored)
    model = next(key for key, node in graph.items() if node["class_type"] == "LatentSyncLoadModel")
    for node in graph.values():
        node["inputs"] |= {
            "LoadVideo": {"file": "video.mp4"},
            "LoadAudio": {"audio": "sound.wav"},
            "LatentSyncSampler": {"steps": 1},
            "LatentSyncVideoCombine": {"crf": options.crf},
        }.get(node["class_type"], {})
        if options.networks == "stand-in" and "model" in node["inputs"]:
            node["inputs"]["model"] = ["stand-in", 0]
    graph["stand-in"] = {"class_type": "LatentSyncBenchmarkStandIn", "inputs": {"model": [model, 0]}}
    return graph


ROUTES: dict[str, Callable[[Path, argparse.Namespace, Run], None]] = {
    "command-line": _by_command_line,
    "comfyui": _through_comfyui,
}


def _watch(process: int, run: Run, seconds: float) -> None:
    """Add a sample; VmHWM is the peak so far, which no sampling misses."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    values = {line.split(":")[0]: line.split() for line in lines if line.startswith("Vm")}
    if "VmHWM" in values:
        run.seconds.append(round(seconds, 2))
        run.resident_mb.append(int(values["VmRSS"][1]) / 1024)
        run.peak_mb = int(values["VmHWM"][1]) / 1024


def _save(out: Path, runs: list[Run]) -> None:
    from matplotlib import pyplot

    out.with_suffix(".json").write_text(json.dumps([asdict(run) for run in runs]), encoding="utf-8")
    figure, axes = pyplot.subplots(figsize=(9, 4.5))
    for run in runs:
        done = [100 * at / run.seconds[-1] for at in run.seconds]
        axes.plot(done, run.resident_mb, label=f"{run.route}, {run.minutes:g} min", linewidth=1)
    axes.set(xlabel="% of the run", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out.with_suffix(".png"), dpi=110)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("sound", type=Path, help="16-bit WAV")
    parser.add_argument("--model", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--route", nargs="+", choices=sorted(ROUTES), default=["command-line"])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--networks", choices=sorted(MODULES), default="stand-in")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("memory"))
    parser.add_argument("--crf", type=int, default=18, help="a higher one takes less time, and no less memory")
    return parser.parse_args()


if __name__ == "__main__":
    main()
