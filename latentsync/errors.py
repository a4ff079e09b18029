"""The error classes. Every failure that is not a bug in this package raises one of these classes.

A message names the file, input or frame, says what happened, and says what to do. ComfyUI shows the message at the
node. The command line prints the message and exits with status 1, or with status 2 for a `UsageError`.
docs/troubleshooting.md lists all messages.
"""

import sys
from collections.abc import Sequence
from pathlib import Path


class LatentSyncError(Exception):
    """Base class of all errors of this package."""


class UsageError(LatentSyncError):
    """A setting or an argument is out of range, or contradicts another setting."""


class DependencyError(LatentSyncError):
    """A required Python library is missing or broken."""


class WeightsError(LatentSyncError):
    """A model file is missing, damaged or made for another network, or a network produced NaN."""


class MediaError(LatentSyncError):
    """A video or image cannot be read or written."""


class OutOfMemoryError(LatentSyncError):
    """The GPU has too little free VRAM, or the computer has too little free RAM, even at batch size 1."""


class StorageError(LatentSyncError):
    """A folder is full or not writable."""


class OutputInUseError(MediaError):
    """Another run is writing the same output."""


class AudioError(LatentSyncError):
    """A recording cannot be read, or has no usable speech."""


class FaceError(LatentSyncError):
    """The video has no usable face, or face landmarks do not fit the video."""


class ScoreError(LatentSyncError):
    """A video cannot be scored, or its score is below the limit."""


def cannot_import(library: str, package: str, cause: ImportError | OSError, instead: str = "") -> DependencyError:
    """The error for a library that cannot be imported. Raise the error from `cause`.

    Args:
        library: name of the library in the message.
        package: name of the library for pip, with the oldest supported version.
        instead: an instruction that works without the library. Empty: there is none.
    """
    alternative = f" You can also {instead}." if instead else ""
    if isinstance(cause, ModuleNotFoundError):
        command = python_command(f'pip install "{package}"')
        return DependencyError(f"{library} is not installed ({cause}). Run {command} and try again.{alternative}")
    if "shared object file" in str(cause):
        return DependencyError(
            f"{library} needs a system library that is missing ({cause}). On Debian or Ubuntu, "
            f"run apt-get install libgl1 libegl1 libgles2 libglib2.0-0 and try again.{alternative}"
        )
    command = python_command(f'pip install --force-reinstall --no-deps "{package}"')
    return DependencyError(
        f"{library} is installed, but does not work ({cause}). To repair {library}, run {command} and try "
        f"again.{alternative}"
    )


def python_command(arguments: str) -> str:
    """A shell command that runs a module in the Python interpreter of this process."""
    return f'"{sys.executable}" -m {arguments}'


def cannot_write(path: Path, cause: Exception) -> MediaError:
    """The error for a file that the system or FFmpeg cannot write. Raise the error from `cause`."""
    return MediaError(
        f"{path} cannot be written ({reason_of(cause)}). Check the file name, the folder, the permissions and the free "
        "space."
    )


def reason_of(cause: BaseException) -> str:
    """The text of a system error, without the error number and the file name."""
    return getattr(cause, "strerror", None) or str(cause)


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Raise UsageError if `value` is not one of `choices`. `field` is the name of the input in the message."""
    if value not in choices:
        raise UsageError(f'"{field}" cannot be {value}. Choose one of {", ".join(choices)}.')
