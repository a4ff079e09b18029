"""The system's own lock on a hidden file: one owner in all processes, and none once that one is dead."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP
from pathlib import Path

from .errors import cannot_import

NO_LOCKS = frozenset({ENOLCK, ENOSYS, ENOTSUP, EOPNOTSUPP})  # of a file system that cannot lock


@contextmanager
def locked(place: Path, patience_seconds: float = 0.0) -> Generator[bool | None, None, None]:
    """Whether the lock on a file is ours while the block runs; None where the file system cannot say.

    The file is made and removed.

    Args:
        place: the file.
        patience_seconds: how long to wait for another owner.

    Raises:
        OSError: the file cannot be made.
        DependencyError: filelock is missing.
    """
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise cannot_import("filelock", "filelock", error) from error
    lock = FileLock(place, timeout=patience_seconds)
    try:
        held: bool | None = bool(lock.acquire())
    except Timeout:
        held = False
    except (OSError, NotImplementedError) as cause:
        if isinstance(cause, OSError) and cause.errno not in NO_LOCKS:
            raise
        held = None
    try:
        yield held
    finally:
        if held is not False:
            with suppress(OSError):  # Windows keeps an open file; an empty one that stays does no harm
                place.unlink()
            lock.release()
