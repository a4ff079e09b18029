"""`doctor`: check the libraries, the device and the model files, and show the commands that fix problems."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import LatentSyncError, cannot_import, python_command
from ..progress import run_with_progress
from ..weights import locate
from ..weights.catalog import MODELS, WeightFile
from . import options

if TYPE_CHECKING:
    from ..weights.catalog import Version

LIBRARIES = {
    "torch": "torch>=2.6",
    "numpy": "numpy",
    "cv2": "opencv-python",
    "av": "av>=14",
    "mediapipe": "mediapipe>=0.10.30",
    "whisper": "openai-whisper>=20240930",
    "diffusers": "diffusers>=0.32",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub>=0.27",
}
"""Module name -> requirement for pip."""


UNETS = tuple(spec.unet for spec in MODELS.values())


FOUND, MISSING, WRONG = "ok", "missing", "wrong"


@dataclass(frozen=True, slots=True)
class Library:
    """A Python library. `version` is None if it cannot be imported, and `problem` says why."""

    name: str
    version: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One required file. `state` is ok, missing or wrong. `problem` says what to do."""

    name: str
    state: str
    folder: str
    size_bytes: int
    url: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of all checks.

    device: None if torch is broken or cannot use any device. `device_problem` says why.
    memory_bytes: memory of the GPU. None without a GPU.
    """

    latentsync: str
    python: str
    libraries: tuple[Library, ...]
    device: str | None
    memory_bytes: int | None
    device_problem: str | None
    version: Version
    files: tuple[FoundFile, ...]

    @property
    def problems(self) -> list[str]:
        """Everything that would make a run fail, with what to do."""
        parts = (*self.libraries, *self.files)
        return [problem for problem in (self.device_problem, *(part.problem for part in parts)) if problem is not None]


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    job = add("doctor", help="check the installation, and show the commands that fix problems")
    job.set_defaults(command=doctor)
    job.add_argument(
        "--version", choices=sorted(MODELS), help="version to check; default: the best that fits the device"
    )
    options.add_models_folder(job)
    job.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def doctor(args: argparse.Namespace) -> None:
    """Print the report. Raises LatentSyncError if a run would fail."""
    report = examine(locate.folders_in(args.models), args.version)
    if args.json:
        values = {"ok": not report.problems, "problems": report.problems, **asdict(report)}
        sys.stdout.write(json.dumps(values, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")
    if report.problems:
        problems = "\n".join(f"- {problem}" for problem in report.problems)
        command = python_command(f'latentsync download {report.version} --models "{args.models}"')
        is_missing = any(file.state == MISSING for file in report.files)
        download = f"\nThe command {command} downloads all missing files." if is_missing else ""
        raise LatentSyncError(f"A run would fail. Solve these problems:\n{problems}{download}")


def examine(folders: locate.Folders, version: Version | None) -> Report:
    """Import, find and verify everything that a run needs."""
    libraries = tuple(_library(name, package) for name, package in LIBRARIES.items())
    device, memory, device_problem = _device() if libraries[0].version else (None, None, None)
    chosen = version or locate.default_version(folders, memory)
    return Report(
        latentsync=__version__,
        python=platform.python_version(),
        libraries=libraries,
        device=device,
        memory_bytes=memory,
        device_problem=device_problem,
        version=chosen,
        files=tuple(_file(file, folders, version) for file in locate.required_files(chosen)),
    )


def _library(name: str, package: str) -> Library:
    try:
        return Library(name, str(resolve_name(name).__version__))
    except Exception as error:  # broken installs raise anything: RuntimeError (numpy), TypeError (protobuf), ...
        return Library(name, None, str(cannot_import(name, package, error)))


def _device() -> tuple[str | None, int | None, str | None]:
    """Name and memory in bytes of the device, or the problem with it."""
    from .device import chosen_device

    try:
        device = chosen_device()
        return str(device), locate.device_memory(device), None
    except Exception as error:  # broken drivers raise anything
        return None, None, f"No device can be used. {error}"


def _file(file: WeightFile, folders: locate.Folders, version: Version | None) -> FoundFile:
    def found(state: str, path: Path, problem: str | None = None) -> FoundFile:
        return FoundFile(path.name, state, str(path.parent), file.size_bytes, file.url, problem)

    try:
        path = locate.find(file, folders)
        if path is None:
            path = locate.destination(file, folders)
            return found(MISSING, path, f"{path} is missing ({file.size_bytes / 1e6:,.0f} MB from {file.url}).")
        if file in UNETS:
            locate.identify_unet(path, version)
        else:
            locate.check_size(file, path)
        run_with_progress(locate.verify(file, path))
    except Exception as error:  # unreadable files, and broken libraries that read them
        return found(WRONG, locate.destination(file, folders), str(error))
    return found(FOUND, path)


def _lines(report: Report) -> Sequence[str]:
    memory = "no GPU" if report.memory_bytes is None else f"{report.memory_bytes / 1e9:.1f} GB of VRAM"
    return [
        f"LatentSync Nodes {report.latentsync}, Python {report.python}",
        *(f"  {library.name} {library.version or 'cannot be imported'}" for library in report.libraries),
        f"device: {report.device or 'unknown'}, {memory}",
        f"version: {report.version} ({MODELS[report.version].resolution} pixels)",
        *(f"  {file.state:<8}{Path(file.folder) / file.name}" for file in report.files),
    ]
