"""`doctor`: what is installed, found and verified, and whether a run would work."""

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
from ..errors import LatentSyncError
from ..progress import run_with_progress
from ..weights import locate
from ..weights.catalog import MODELS, WeightFile
from . import options

if TYPE_CHECKING:
    from ..weights.catalog import Version

LIBRARIES = ("torch", "numpy", "cv2", "av", "mediapipe", "whisper", "diffusers", "safetensors", "huggingface_hub")


UNETS = tuple(spec.unet for spec in MODELS.values())


FOUND, MISSING, WRONG = "ok", "missing", "wrong"


@dataclass(frozen=True, slots=True)
class Library:
    """A library as it is imported; `version` is None and `problem` says why where it is not."""

    name: str
    version: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One needed file: `state` is ok, missing or wrong; `problem` says what to do."""

    name: str
    state: str
    folder: str
    size_bytes: int
    url: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that doctor knows. `memory_bytes` is the card's; None without one.

    device: None where torch is broken or finds that none can be used; `device_problem` says why.
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
        """What would make a run fail."""
        told = [*(each.problem for each in self.libraries), self.device_problem, *(each.problem for each in self.files)]
        return [problem for problem in told if problem is not None]


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    job = add("doctor", help="say what is installed and found, and whether a run would work")
    job.set_defaults(command=doctor)
    job.add_argument("--version", choices=sorted(MODELS), help="look for this one; otherwise what this machine takes")
    options.add_models_folder(job)
    job.add_argument("--json", action="store_true", help="one JSON object instead of text")


def doctor(args: argparse.Namespace) -> None:
    """Print the report; fails if a run would."""
    report = examine(locate.folders_in(args.models), args.version)
    if args.json:
        found = {"ok": not report.problems, "problems": report.problems, **asdict(report)}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")
    if report.problems:
        raise LatentSyncError("a run would fail:\n" + "\n".join(f"- {problem}" for problem in report.problems))


def examine(folders: locate.Folders, version: Version | None) -> Report:
    """Import, find and verify everything that a run needs."""
    libraries = tuple(_library(name) for name in LIBRARIES)
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


def _library(name: str) -> Library:
    try:
        return Library(name, str(resolve_name(name).__version__))
    except Exception as error:  # broken installs raise anything: RuntimeError (numpy), TypeError (protobuf), ...
        return Library(name, None, f"{name} cannot be imported ({error}): pip install -r requirements.txt")


def _device() -> tuple[str | None, int | None, str | None]:
    """Its name, its memory in bytes, and what is wrong with it."""
    from .device import chosen_device

    try:
        device = chosen_device()
        return str(device), locate.device_memory(device), None
    except Exception as error:  # drivers break in as many ways as libraries
        return None, None, f"no device can be used: {error}"


def _file(file: WeightFile, folders: locate.Folders, version: Version | None) -> FoundFile:
    def told(state: str, place: Path, problem: str | None = None) -> FoundFile:
        return FoundFile(place.name, state, str(place.parent), file.size_bytes, file.url, problem)

    try:
        place = locate.find(file, folders)
        if place is None:
            place = locate.destination(file, folders)
            return told(MISSING, place, f"{place} is missing: {file.size_bytes / 1e6:,.0f} MB from {file.url}")
        if file in UNETS:
            locate.identify_unet(place, version)
        else:
            locate.check_size(file, place)
        run_with_progress(locate.verify(file, place))
    except Exception as error:  # unreadable files, and broken libraries that look into them
        return told(WRONG, locate.destination(file, folders), str(error))
    return told(FOUND, place)


def _lines(report: Report) -> Sequence[str]:
    memory = "no card" if report.memory_bytes is None else f"{report.memory_bytes / 1e9:.1f} GB"
    return [
        f"LatentSync Nodes {report.latentsync}, Python {report.python}",
        *(f"  {each.name} {each.version or 'cannot be imported'}" for each in report.libraries),
        f"device: {report.device or 'unknown'}, {memory}",
        f"version: {report.version} ({MODELS[report.version].resolution} pixels)",
        *(f"  {each.state:<8}{Path(each.folder) / each.name}" for each in report.files),
    ]
