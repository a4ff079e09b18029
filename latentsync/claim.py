"""The name of a video that is being made: nobody else's meanwhile, and rid of what a killed run left beside it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from .errors import DependencyError, MediaError
from .formats import FORMATS

if TYPE_CHECKING:
    from filelock import BaseFileLock

SUFFIXES = frozenset(form.suffix for form in FORMATS)
PART = r"\.{stem}\.[0-9a-f]{{12}}\.part\.\w+"


def part_of(path: Path) -> Path:
    """A hidden name beside `path`, never given before, to write to until the file is whole."""
    return path.with_name(f".{path.stem}.{uuid4().hex[:12]}.part{path.suffix}")


@contextmanager
def claimed(names: Iterable[Path], *, fresh: bool = False) -> Generator[Path, None, None]:
    """The first of these names that no other run is writing to, in this process or any other, until the block ends.

    The claim is the system's own lock on a hidden empty file beside it, which ends with the process however that
    ends. So what killed runs left in the folder is known, and removed.

    Args:
        names: of videos in one folder.
        fresh: leave out names that are there already.

    Raises:
        MediaError: the folder cannot be written to, or others are at work on all of the names.
    """
    path = None
    for path in names:
        lock = _locked(path)
        if lock is None:
            continue
        try:
            if not (fresh and path.exists()):
                _remove_parts(path)
                _sweep(path.parent)
                yield path
                return
        finally:
            _free(lock)
    raise MediaError(f"{path}: another run is writing it: wait for that one, or choose another output")


def _locked(path: Path) -> BaseFileLock | None:
    """The lock on a name, or None where somebody else has it."""
    try:
        from filelock import FileLock, Timeout
    except ImportError as error:
        raise DependencyError(f"filelock cannot be imported ({error}): pip install filelock") from error
    place = _lock_of(path)
    lock = FileLock(place, timeout=0)
    try:
        place.touch()  # says why it cannot be, where the lock would wait for better times
        with suppress(NotImplementedError):  # a file system without locks: nobody is kept out
            lock.acquire()
    except Timeout:
        return None
    except (OSError, ValueError) as cause:  # a name with a null character is a ValueError
        reason = getattr(cause, "strerror", None) or str(cause)
        raise MediaError(
            f"{path}: cannot be written ({reason}); check the folder, its permissions and the free space"
        ) from cause
    return lock


def _free(lock: BaseFileLock) -> None:
    try:
        with suppress(OSError):  # Windows keeps an open file, and removes it on release
            Path(lock.lock_file).unlink()
    finally:
        lock.release()


def _sweep(folder: Path) -> None:
    """Remove what runs left that were killed: their locks are free."""
    for left in [path for path in folder.glob(".*.lock") if Path(path.stem).suffix in SUFFIXES]:
        path = left.with_name(left.stem.removeprefix("."))
        with suppress(MediaError):  # a lock of another user's
            lock = _locked(path)
            if lock is not None:
                _remove_parts(path)
                _free(lock)


def _remove_parts(path: Path) -> None:
    """Remove half-written files of a name that nobody is writing to."""
    pattern = re.compile(PART.format(stem=re.escape(path.stem)))
    for left in path.parent.glob(".*.part.*"):
        if pattern.fullmatch(left.name):
            with suppress(OSError):
                left.unlink()


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
