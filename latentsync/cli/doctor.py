"""`doctor`: check the libraries, the device and the model files that a run needs."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import DependencyError, LatentSyncError, python_command
from ..faces.detectors import open_detector
from ..progress import run_with_progress
from ..weights import locate
from ..weights.catalog import MODELS, WeightFile
from . import options

if TYPE_CHECKING:
    from ..weights.catalog import Version

LIBRARIES = {
    "torch": "torch>=2.6",
    "numpy": "numpy>=1.26",
    "cv2": "opencv-contrib-python",
    "av": "av>=16",
    "mediapipe": "mediapipe>=0.10.32",
    "whisper": "openai-whisper>=20240930",
    "diffusers": "diffusers>=0.32",
    "safetensors": "safetensors>=0.4.2",
    "huggingface_hub": "huggingface_hub>=0.27",
}
"""Module -> name of its package for pip."""


UNETS = tuple(spec.unet for spec in MODELS.values())


FOUND, MISSING, WRONG = "ok", "missing", "wrong"


@dataclass(frozen=True, slots=True)
class Library:
    """A library. For a library that cannot be imported, `version` is None, and `problem` gives the reason."""

    name: str
    version: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that a run needs. `state` is ok, missing or wrong, and `problem` says what to do."""

    name: str
    state: str
    folder: str
    size_bytes: int
    url: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of the checks.

    device: name of the device. None: torch cannot use a device, see `device_problem`.
    memory_bytes: VRAM of the device. None for a CPU.
    models: the models folder.
    """

    latentsync: str
    python: str
    libraries: tuple[Library, ...]
    device: str | None
    memory_bytes: int | None
    device_problem: str | None
    version: Version
    models: str
    files: tuple[FoundFile, ...]

    @property
    def problems(self) -> list[str]:
        """All problems that make a run fail."""
        problems = [
            *(library.problem for library in self.libraries),
            self.device_problem,
            *(file.problem for file in self.files),
        ]
        return [problem for problem in problems if problem is not None]

    @property
    def fixes(self) -> list[str]:
        """Commands that install missing libraries and download missing files."""
        commands: list[str] = []
        packages = [f'"{LIBRARIES[library.name]}"' for library in self.libraries if library.problem]
        if packages:
            commands.append(python_command(f"pip install {' '.join(packages)}"))
        if any(file.state == MISSING for file in self.files):
            commands.append(python_command(f'latentsync download {self.version} --models "{self.models}"'))
        return commands


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    parser = add("doctor", help="check libraries, device and model files, and show how to fix them")
    parser.set_defaults(command=doctor)
    parser.add_argument(
        "--version", choices=sorted(MODELS), help="model version to check. The default is the version that a run uses"
    )
    options.add_models_folder(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def doctor(args: argparse.Namespace) -> None:
    """Print the report. Raises LatentSyncError with the problems and the commands that fix them."""
    report = examine(args.models, args.version)
    if args.json:
        content = {"ok": not report.problems, "problems": report.problems, "fixes": report.fixes, **asdict(report)}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(report)) + "\n")
    if report.problems:
        problems = "\n".join(f"- {problem}" for problem in report.problems)
        fixes = "".join(f"\n  {command}" for command in report.fixes)
        remedy = f"To fix the problems, run:{fixes}" if fixes else "Solve these problems, then try again."
        raise LatentSyncError(f"A run would fail:\n{problems}\n{remedy}")


def examine(models: Path, version: Version | None) -> Report:
    """Import, find and verify everything that a run needs."""
    folders = locate.folders_in(models)
    libraries = tuple(_with_detector(_library(name), folders) for name in LIBRARIES)
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
        models=str(models),
        files=tuple(_file(file, folders, version) for file in locate.required_files(chosen)),
    )


def _library(name: str) -> Library:
    from packaging.requirements import Requirement

    try:
        version = str(resolve_name(name).__version__)
    except Exception as error:  # broken installs raise anything: RuntimeError (numpy), TypeError (protobuf), ...
        return Library(name, None, f"{name} cannot be imported ({error}). Install it again.")
    if not Requirement(LIBRARIES[name]).specifier.contains(version, prereleases=True):
        return Library(name, version, f"{name} {version} is too old. {LIBRARIES[name]} is needed.")
    return Library(name, version)


def _with_detector(library: Library, folders: locate.Folders) -> Library:
    """Report a problem of MediaPipe if MediaPipe cannot open its model.

    In this case, a system library such as libGLESv2 is missing.
    """
    if library.name == "mediapipe" and library.problem is None:
        try:
            open_detector(partial(locate.require, folders=folders)).close()
        except DependencyError as error:
            return replace(library, problem=str(error))
        except LatentSyncError:
            pass  # the model file is missing or wrong, which the list of files says
    return library


def _device() -> tuple[str | None, int | None, str | None]:
    """Name of the device, its VRAM in bytes, and the problem with it."""
    from .device import chosen_device

    try:
        device = chosen_device()
        return str(device), locate.device_memory(device), None
    except Exception as error:  # broken drivers raise any type of error
        return None, None, f"No device can be used: {error}"


def _file(file: WeightFile, folders: locate.Folders, version: Version | None) -> FoundFile:
    def result(state: str, path: Path, problem: str | None = None) -> FoundFile:
        return FoundFile(path.name, state, str(path.parent), file.size_bytes, file.url, problem)

    try:
        path = locate.find(file, folders)
        if path is None:
            path = locate.destination(file, folders)
            return result(MISSING, path, f"{path} is missing. Download {file.size_bytes / 1e6:,.0f} MB from {file.url}")
        if file in UNETS:
            locate.identify_unet(path, version)
        else:
            locate.check_size(file, path)
        run_with_progress(locate.verify(file, path))
    except Exception as error:  # unreadable files, and broken libraries that look into them
        return result(WRONG, locate.destination(file, folders), str(error))
    return result(FOUND, path)


def _lines(report: Report) -> Sequence[str]:
    memory = "no GPU" if report.memory_bytes is None else f"{report.memory_bytes / 1e9:.1f} GB"
    return [
        f"LatentSync Nodes {report.latentsync}, Python {report.python}",
        *(f"  {library.name} {library.version or 'cannot be imported'}" for library in report.libraries),
        f"device: {report.device or 'unknown'}, {memory}",
        f"version: {report.version} ({MODELS[report.version].resolution} pixels)",
        *(f"  {file.state:<8}{Path(file.folder) / file.name}" for file in report.files),
    ]
