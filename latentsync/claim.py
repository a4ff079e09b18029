"""The name of a video that is being made: nobody else's meanwhile, and rid of what a killed run left beside it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from .errors import MediaError, cannot_write
from .lock import locked
from .output.formats import FORMATS

SUFFIXES = frozenset(form.suffix for form in FORMATS)
WRITTEN = "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES | {".json", ".png"}))
LOCK = ".latentsync.lock"
PATIENCE_SECONDS = 1.0  # longer than anybody needs to give a name back


def part_of(path: Path) -> Path:
    """A hidden name beside `path`, never given before, to write to until the file is whole."""
    return path.with_name(f".{path.stem}.{uuid4().hex[:12]}.part{path.suffix}")


@contextmanager
def claimed(names: Iterable[Path], *, fresh: bool = False) -> Generator[Path, None, None]:
    """The first of these names that no other run is writing to, in this process or any other, until the block ends.

    The claim is of a name without its suffix, for the record beside a video has it, too. It is the system's own lock
    on a hidden empty file, which ends with the process however that ends; so what killed runs left in the folder is
    known, and removed. Where the file system cannot lock, nobody is kept out, and nothing is removed.

    Args:
        names: of videos in one folder.
        fresh: leave out names under which there is a video already, of whatever suffix.

    Raises:
        MediaError: the folder cannot be written to, or others are at work on all of the names.
    """
    path = None
    for path in names:
        with _locked(path) as held:
            _check_writable(path)  # first: filelock takes some folders that take no files for a lock that is held
            if held is False or (fresh and _is_there(path)):
                continue
            if held:
                _remove_parts(path.parent, path.stem)
                _sweep(path.parent)
            yield path
            return
    raise MediaError(f"{path}: another run is writing it: wait for that one, or choose another output")


def write_whole(path: Path, data: bytes, run: Path | None = None) -> None:
    """Write a file that appears under its name only when it is whole.

    Args:
        path, data: the file and its content.
        run: the video of the run that the file belongs to, if it is not itself what is claimed: where a run was killed,
            the next claim in its folder removes what is left under a claimed name.

    Raises:
        MediaError: it cannot be written.
    """
    part = part_of((run or path).with_suffix(path.suffix))
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as cause:
        raise cannot_write(path, cause) from cause
    finally:
        with suppress(OSError):  # what a name that is too long says again
            part.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Generator[bool | None, None, None]:
    """Whether a name is ours now, as `locked` says it."""
    with ExitStack() as stack:
        try:
            path.parent.stat()  # a folder that is not there would be made
            held = stack.enter_context(locked(path.with_name(f".{path.stem}{LOCK}"), PATIENCE_SECONDS))
        except (OSError, ValueError) as cause:  # ValueError: no system has such a name
            raise cannot_write(path, cause) from cause
        yield held


def _check_writable(path: Path) -> None:
    probe = part_of(path)
    try:
        probe.touch()
        probe.unlink(missing_ok=True)  # a name that is not ours may be cleared by whose it is
    except OSError as cause:
        raise cannot_write(path, cause) from cause


def _is_there(path: Path) -> bool:
    return any(path.with_suffix(suffix).exists() for suffix in SUFFIXES)


def _sweep(folder: Path) -> None:
    """Remove what runs left that were killed: their locks are free."""
    for left in list(folder.glob(f".*{LOCK}")):
        with suppress(OSError), locked(left) as held:  # OSError: another user's
            if held:
                _remove_parts(folder, left.name.removeprefix(".").removesuffix(LOCK))


def _remove_parts(folder: Path, stem: str) -> None:
    """Remove half-written files of a name that nobody is writing to."""
    pattern = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{12}}\.part({WRITTEN})")
    for left in [path for path in folder.glob(".*.part.*") if pattern.fullmatch(path.name)]:
        with suppress(OSError):
            left.unlink()
