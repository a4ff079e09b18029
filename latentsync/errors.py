"""The error tree. Every failure that is not a mistake in this package is one of these.

A message names the file, input or frame, says what happened, and says what to do. ComfyUI shows it at the node. The
command line prints it and exits with status 1, or 2 for a `UsageError`. docs/troubleshooting.md lists all messages.
"""

import sys
from collections.abc import Sequence
from pathlib import Path


class LatentSyncError(Exception):
    """Base of every error that the package raises on purpose."""


class UsageError(LatentSyncError):
    """A setting or an argument is out of range or contradicts another."""


class DependencyError(LatentSyncError):
    """A required Python library is missing or broken."""


class WeightsError(LatentSyncError):
    """A model file is missing, damaged or of another network, or a network produced NaN."""


class MediaError(LatentSyncError):
    """A video or image cannot be read or written."""


class OutOfMemoryError(LatentSyncError):
    """The GPU or the system ran out of memory, even at batch size 1."""


class StorageError(LatentSyncError):
    """A folder is full or not writable."""


class OutputInUseError(MediaError):
    """Another run is writing the same output."""


class AudioError(LatentSyncError):
    """A recording cannot be read, or has no usable speech."""


class FaceError(LatentSyncError):
    """No usable face was found, or face landmarks do not fit the video."""


class ScoreError(LatentSyncError):
    """A video cannot be scored, or its score is below the limit."""


def cannot_import(library: str, package: str, cause: ImportError | OSError, instead: str = "") -> DependencyError:
    """The error of a library that cannot be imported, to be raised from `cause`.

    Args:
        library: its name in texts.
        package: its name for pip, with the oldest supported version.
        instead: an instruction that avoids the library, if there is one.
    """
    alternative = f" Or {instead}." if instead else ""
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
        f"{library} is installed, but does not work ({cause}). To repair it, run {command} and try again.{alternative}"
    )


def python_command(arguments: str) -> str:
    """A shell command that runs a module in the Python interpreter of this process."""
    return f'"{sys.executable}" -m {arguments}'


def cannot_write(path: Path, cause: Exception) -> MediaError:
    """The error of a file that the system or FFmpeg cannot write, to be raised from `cause`."""
    return MediaError(
        f"{path} cannot be written ({reason_of(cause)}). Check its name, its folder, permissions and free space."
    )


def reason_of(cause: BaseException) -> str:
    """The text of an error of the system, without its number and file name."""
    return getattr(cause, "strerror", None) or str(cause)


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Raises UsageError if `value` is not one of `choices`."""
    if value not in choices:
        raise UsageError(f'"{field}" cannot be {value}. Choose one of {", ".join(choices)}.')
