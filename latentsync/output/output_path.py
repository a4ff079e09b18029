"""Reserve an output path across processes, and clean up stale temporary files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..errors import OutputInUseError, cannot_write
from ..fileio import claim
from .formats import FORMATS

SUFFIXES = frozenset(form.suffix for form in FORMATS)


@contextmanager
def reserve_path(paths: Iterable[Path], *, fresh: bool = False) -> Generator[Path, None, None]:
    """Reserve the first path that no other run uses, in this process or another, until the block ends.

    An empty file reserves the path, because only one process can create it. An existing video stays unchanged until the
    new video replaces it. If the block ends without a video, the function deletes the empty file. It also does so if
    Ctrl-C interrupts the function itself. A killed run leaves its empty file and its temporary files. The next
    reservation in the folder deletes these files.

    Args:
        paths: possible paths of the video, in one folder. Paths that differ only in their suffix count as the same
            path, because their videos share one run record.
        fresh: skip the names of existing videos, also of videos in other formats. Otherwise, the new video replaces an
            existing video at its path.

    Raises:
        MediaError: the folder is not writable.
        OutputInUseError: other runs use all paths.
    """
    path = None
    for path in paths:
        with ExitStack() as stack:
            try:
                is_alone = stack.enter_context(claim(path))
                created = stack.enter_context(_empty_file(path, is_alone))
                # in this order: another run claims the path before it creates the file
                free = created and not _has_sibling(path) if fresh else is_alone()
            except (OSError, ValueError) as cause:  # ValueError: no file system allows such a name
                raise cannot_write(path, cause) from cause
            if free:
                yield path
                return
    raise OutputInUseError(f"Another run is writing {path}. Wait until that run ends, or choose another output.")


def videos_named(path: Path) -> frozenset[Path]:
    """The videos of any format with the name of `path`, without empty files that reserve a name."""
    others = (path.with_suffix(suffix) for suffix in SUFFIXES)
    return frozenset(other for other in others if other.is_file() and other.stat().st_size > 0)


@contextmanager
def _empty_file(path: Path, is_alone: Callable[[], bool]) -> Generator[bool, None, None]:
    """Create an empty file, and delete it at the end if it is still empty. Yields False if the path exists already."""
    existed, created = path.exists(), None
    try:
        try:
            path.open("xb").close()
            created = True
        except FileExistsError:
            created = False
        yield created
    finally:
        # None: Ctrl-C or an error interrupted the creation. A new file then belongs to this run if no other run
        # claims the path
        with suppress(OSError):
            is_ours = created or (created is None and not existed and is_alone())
            if is_ours and path.stat().st_size == 0:
                path.unlink()


def _has_sibling(path: Path) -> bool:
    return any(path.with_suffix(suffix).exists() for suffix in SUFFIXES - {path.suffix})
