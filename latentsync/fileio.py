"""Write files atomically, claim names that other processes may also want, and hash files.

A file is written beside its final name under a hidden temporary name, and renamed when it is complete. The temporary
name identifies the process that owns it: machine, process id and process start time. A later run can therefore tell
which temporary files belong to a running process, and delete those of processes that were killed. No file locks are
needed, and network drives do not need to support them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from .errors import cannot_import
from .progress import Progress, Task

BLOCK_BYTES = 16 << 20
START_TOLERANCE_SECONDS = 10  # the system may report another start time for a process after its clock was set
FOREIGN_AGE_SECONDS = 7 * 24 * 3600  # processes of other machines cannot be looked up: their files are stale by age
TEMP_NAME = re.compile(r"\.latentsync-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{12}\.(claim|part)(\.\w+)?")


def temp_path(path: Path) -> Path:
    """A new hidden name beside `path`, with its suffix, that identifies this process as its owner."""
    return path.with_name(f"{_temp_prefix()}.part{path.suffix}")


def atomic_write(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file that appears under its name only when it is complete. An existing file is replaced.

    Args:
        path: the final name.
        content: the bytes, or a function that writes the file under the path that it receives.

    Raises:
        OSError: the file cannot be written. The temporary file is deleted, whatever the failure.
    """
    temporary = temp_path(path)
    try:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            content(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256_file(path: Path) -> Task[str]:
    """The SHA-256 of a file, in hexadecimal."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            yield Progress(f"verifying {path.name}", done, total)
    return digest.hexdigest()


@contextmanager
def claim(path: Path) -> Generator[Callable[[], bool], None, None]:
    """Announce that this process works on `path` until the block ends. The suffix of the name does not count.

    The claim is a hidden file beside `path` that contains its name. Stale files of killed processes are deleted first.

    Yields:
        A function that says whether no other claim of the same name exists, of a running process.

    Raises:
        OSError: the folder cannot be written to.
    """
    remove_stale_files(path.parent)
    marker = path.with_name(f"{_temp_prefix()}.claim")

    def is_alone() -> bool:
        claims = path.parent.glob(".latentsync-*.claim")
        return not any(_claimed_name(other).stem == path.stem for other in claims if other != marker)

    try:
        marker.write_text(path.name, encoding="utf-8", errors="surrogateescape")
        yield is_alone
    finally:
        with suppress(OSError):
            marker.unlink(missing_ok=True)


def remove_stale_files(folder: Path) -> None:
    """Delete the temporary files of killed processes, and the empty files under the names that they had reserved."""
    machine, is_running = _machine(), cache(_is_running)  # a batch has one claim for each of its workers
    for path in list(folder.glob(".latentsync-*")):
        owner = TEMP_NAME.fullmatch(path.name)
        with suppress(OSError):  # other processes delete the same files, and some belong to other users
            if owner is None or (
                is_running(int(owner[2]), int(owner[3]))
                if owner[1] == machine
                else time.time() - path.stat().st_mtime < FOREIGN_AGE_SECONDS
            ):
                continue
            reserved = folder / _claimed_name(path).name
            if owner[4] == "claim" and reserved.is_file() and reserved.stat().st_size == 0:
                reserved.unlink()
            path.unlink()


def _claimed_name(marker: Path) -> Path:
    """The name that a claim is for. Empty if another process has just created or deleted the claim."""
    try:
        return Path(marker.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return Path()


def owner_prefix() -> str:
    """The beginning of the names of all temporary files of this process."""
    started = round(_psutil().Process().create_time())
    return f".latentsync-{_machine()}-{os.getpid()}-{started}-"


def owned_files(folders: Iterable[Path], prefix: str) -> list[Path]:
    """The temporary files of the process with this `owner_prefix`, which can be one of another machine."""
    return [path for folder in folders for path in folder.glob(f"{prefix}*")]


def _temp_prefix() -> str:
    return owner_prefix() + uuid4().hex[:12]


def _is_running(pid: int, started: int) -> bool:
    """Whether a process of this machine still runs, or may still run."""
    psutil = _psutil()
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < START_TOLERANCE_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _machine() -> str:
    """Identifies this machine, and on Linux this container: process ids of others mean nothing here."""
    name = platform.node()
    with suppress(OSError):
        name += str(Path("/proc/self/ns/pid").stat().st_ino)
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def _psutil() -> ModuleType:
    try:
        import psutil
    except ImportError as error:
        raise cannot_import("psutil", "psutil", error) from error
    return psutil
