"""Memory of the command line over time, for clips of different lengths: it must not grow with them.

Each run is a process of its own, watched from outside four times a second. The sampler's networks can be replaced by
stand-ins that cost nothing (`--networks stand-in`), since they work on 16 frames at a time whatever the length; all
else is the product's own: reading, finding the face, listening, cropping, blending, encoding.

Usage: python -m benchmarks.memory VIDEO SOUND.wav --minutes 1 10 [--networks synthetic] [--out benchmarks/memory]
Linux only: resident memory is read from /proc. Writes OUT.json and OUT.png, prints a table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.media import loop_sound, loop_video

REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = {"synthetic": "latentsync", "stand-in": "benchmarks.stand_in"}
WATCH_SECONDS = 0.25


@dataclass
class Run:
    """Resident memory of one run. seconds: since its start; resident_mb: at those instants, as Linux counts it."""

    minutes: float
    networks: str
    seconds: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    status: int = -1


def main() -> None:
    options = _options()
    runs = [_measure(options, minutes) for minutes in options.minutes]
    _save(options.out, runs)
    sys.stdout.write("| networks | clip | took | peak resident |\n|---|---|---|---|\n")
    for run in runs:
        sys.stdout.write(f"| {run.networks} | {run.minutes:g} min | {run.seconds[-1]:.0f} s | {run.peak_mb:.0f} MB |\n")
    sys.exit(max(run.status for run in runs))


def _measure(options: argparse.Namespace, minutes: float) -> Run:
    run = Run(minutes, options.networks)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop_video(options.video, folder / "video.mp4", 60 * minutes)
        loop_sound(options.sound, folder / "sound.wav", 60 * minutes)
        command = [sys.executable, "-m", MODULES[options.networks], "run", "video.mp4", "sound.wav", "-o", "out.mp4"]
        command += ["--synthetic", "--steps", "1", *options.more]
        command[4:6] = [str(folder / "video.mp4"), str(folder / "sound.wav")]
        command[7] = str(folder / "out.mp4")
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        start = time.monotonic()
        while process.poll() is None:
            _watch(process.pid, run, time.monotonic() - start)
            time.sleep(WATCH_SECONDS)
        run.status = process.returncode
    return run


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
        axes.plot(done, run.resident_mb, label=f"{run.minutes:g} min ({run.networks} networks)", linewidth=1)
    axes.set(xlabel="% of the run", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out.with_suffix(".png"), dpi=110)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("sound", type=Path, help="16-bit WAV")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--networks", choices=sorted(MODULES), default="stand-in")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("memory"))
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further arguments of the command line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
