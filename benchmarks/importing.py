"""What the pack adds to ComfyUI's start: importing it, its entry point, and the schema of every node.

Each run is a process of its own in which ComfyUI's own modules are loaded already.

Usage: python -m benchmarks.importing [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.import_in_comfyui import LOADED
from scripts.comfyui import REPOSITORY, environment, installed_program

CHILD = Path(__file__).with_name("import_in_comfyui.py")


@dataclass(frozen=True)
class Loading:
    """One import of the pack."""

    seconds: float
    nodes: list[str]
    packages: list[str]
    """Of others, and not imported by ComfyUI before."""
    asked: list[str]
    """What was asked for in vain."""
    said: str
    """On stdout and stderr."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the pack adds to ComfyUI's start.")
    parser.add_argument("--runs", type=int, default=5, help="counted runs, after one that is not (default: 5)")
    runs = parser.parse_args().runs
    load()
    loadings = [load() for _ in range(runs)]
    seconds = [loading.seconds for loading in loadings]
    print(f"{installed_program().name}, {len(loadings[0].nodes)} nodes, {runs} processes")
    print(f"seconds: min {min(seconds):.3f}, median {statistics.median(seconds):.3f}, max {max(seconds):.3f}")
    print(f"packages that came in with it: {', '.join(loadings[0].packages) or 'none'}")


def load(*refused: str) -> Loading:
    """Load the pack in a new process that holds ComfyUI's modules.

    refused: packages that cannot be imported there.
    Raises RuntimeError with what the process said when it failed.
    """
    program = installed_program()
    done = subprocess.run(
        [sys.executable, str(CHILD), str(program), str(REPOSITORY), *refused],
        cwd=program,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the pack could not be loaded:\n{done.stderr}")
    *said, told = done.stdout.partition(f"{LOADED}\n")[2].splitlines(keepends=True)
    return Loading(**json.loads(told), said="".join(said) + done.stderr.partition(f"{LOADED}\n")[2])


if __name__ == "__main__":
    main()
