"""Write files atomically, claim file names that other processes may also use, and hash files.

The module writes a file beside its final name under a hidden temporary name, and renames the complete file. The
temporary name identifies the process that owns the file: machine, process id and process start time. A later run
therefore recognizes the temporary files of running processes, and deletes the files of killed processes. This method
needs no file locks, so it also works on network drives without file locks.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from uuid import uuid4

from .errors import cannot_import
from .progress import Progress, Task

BLOCK_BYTES = 16 << 20
START_TOLERANCE_SECONDS = 10  # a changed system clock can change the reported start time of a process
FOREIGN_AGE_SECONDS = 7 * 24 * 3600  # other machines' processes are unknown here: their files count as stale
TEMP_NAME = re.compile(r"\.latentsync-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{12}\.(claim|part)(\.\w+)?")


def temp_path(path: Path) -> Path:
    """A new hidden path in the folder of `path`, with the same suffix. The name contains this process as the owner."""
    return path.with_name(f"{_temp_prefix()}.part{path.suffix}")


def atomic_write(path: Path, content: bytes | Callable[[Path], object]) -> None:
    """Write a file that gets its name only when it is complete. The new file replaces an existing file.

    Args:
        path: the final name.
        content: the bytes, or a function that receives a path and writes the file there.

    Raises:
        OSError: the file cannot be written. After any failure, the function deletes the temporary file.
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
    """Announce that this process writes `path` until the block ends. Names that differ only in the suffix count as
    equal.

    The claim is a hidden file beside `path`. The file contains the name of `path`. The function first deletes the
    claims of killed processes.

    Yields:
        A function that returns True if no other claim of the same name exists.

    Raises:
        OSError: the folder is not writable.
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
    """Delete the temporary files of killed processes, and the empty files that reserved their output names."""
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
    """The file name in a claim. Empty if another process has just created or deleted the claim."""
    try:
        return Path(marker.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return Path()


def owner_prefix() -> str:
    """The beginning of the names of all temporary files of this process."""
    started = round(_psutil().Process().create_time())
    return f".latentsync-{_machine()}-{os.getpid()}-{started}-"


def _temp_prefix() -> str:
    return owner_prefix() + uuid4().hex[:12]


def _is_running(pid: int, started: int) -> bool:
    """Whether a process of this machine is running. True if the system denies access to the process."""
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
    """An id of this machine, and on Linux of this container.

    A process id is valid only on one machine or in one container.
    """
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
