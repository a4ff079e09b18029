"""The error tree: every failure that a user can meet is one of these.

A message says what was given, what was needed and what to do. The command line prints it and leaves
with status 1 (2 for `UsageError`); ComfyUI shows it at the node.
"""

from collections.abc import Sequence
from pathlib import Path


class LatentSyncError(Exception):
    """Base of every error that the package raises on purpose."""


class UsageError(LatentSyncError):
    """A setting or an argument is out of range or contradicts another."""


class DependencyError(LatentSyncError):
    """A library that the pack requires cannot be imported."""


class WeightsError(LatentSyncError):
    """A model file is missing, unreadable, or not the network it is said to be."""


class MediaError(LatentSyncError):
    """A video or picture cannot be read or written."""


class OutOfMemoryError(LatentSyncError):
    """Memory ran out, and nothing was left to halve."""


class StorageError(LatentSyncError):
    """A folder cannot hold what a job must write or put aside."""


class AudioError(LatentSyncError):
    """A recording cannot be read or holds nothing to speak from."""


class FaceError(LatentSyncError):
    """No face can be worked on."""


def cannot_import(library: str, package: str, cause: ImportError, instead: str = "") -> DependencyError:
    """The error of a library that is not there, to be raised from `cause`.

    Args:
        library: as its users call it.
        package: as pip calls it, with the least version.
        instead: what does without it, if anything.
    """
    otherwise = f", or {instead}" if instead else ""
    return DependencyError(
        f"{library} cannot be imported ({cause}). Install it in the Python that runs this: "
        f"pip install '{package}'{otherwise}."
    )


def cannot_write(path: Path, cause: Exception) -> MediaError:
    """The error of a file that the system, or FFmpeg, does not write, to be raised from `cause`."""
    reason = getattr(cause, "strerror", None) or str(cause)
    return MediaError(
        f"{path}: cannot be written ({reason}); check the name, the folder, its permissions and the free space"
    )


def check_choice(field: str, value: str, choices: Sequence[str]) -> None:
    """Raises UsageError where `value` is none of `choices`."""
    if value not in choices:
        raise UsageError(f"{field} must be one of {', '.join(choices)}, not {value!r}")
