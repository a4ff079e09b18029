"""Errors that the command line shows for failures of the system."""

from __future__ import annotations

from ..errors import LatentSyncError, StorageError, reason_of


def error_of(error: Exception) -> LatentSyncError | None:
    """The package's error for a failure of the system. None: the failure is a bug."""
    if isinstance(error, LatentSyncError):
        return error
    if isinstance(error, (RuntimeError, MemoryError)):
        from ..oom import is_out_of_memory, out_of_memory_error

        return out_of_memory_error(error) if is_out_of_memory(error) else None
    if isinstance(error, OSError):  # such as a full temporary folder or a closed standard output
        place = error.filename or "A file"
        advice = "Check the file name, the folder, the permissions and the free space."
        return StorageError(f"{place} cannot be written ({reason_of(error)}). {advice}")
    return None
