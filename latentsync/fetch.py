"""Downloads of weights, the one place that reaches the network: resumed, checked, and named only when whole."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from . import __version__, verify
from .errors import WeightsError, cannot_import
from .hub import Folders, destination
from .lock import locked
from .progress import Progress, Task
from .weights.catalog import HUB, WeightFile

STEP_SECONDS = 0.2  # between two looks at how far a download has come
SPARE_BYTES = 64 << 20  # of the disk, left free
BAR = "huggingface_hub.http_get"  # the hub library's own progress bar


def fetch(files: Sequence[WeightFile], folders: Folders) -> Task[None]:
    """Download files to where they belong.

    Raises:
        WeightsError: the disk is too small or read-only, the network fails, or what came is not the published file.
    """
    places = {file: destination(file, folders) for file in files}
    check_room(places)
    for file, place in places.items():
        yield from fetch_one(file, place)


def fetch_one(file: WeightFile, place: Path) -> Task[None]:
    """Download one file: into `NAME.part`, going on where an earlier try ended; under its name once its hash is right.

    Killed at any moment, it leaves nothing wrong under the name.
    """
    with _naming(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            if not place.is_file():
                yield from _bring(file, place)


def _bring(file: WeightFile, place: Path) -> Task[None]:
    part = part_of(place)
    yield from _transfer(file, part)
    digest = yield from verify.compute(part)
    if digest != file.sha256:
        part.unlink()
        raise WeightsError(
            f"{address(file)}: what came is not {file.name}: its sha256 begins with {digest[:12]}, not with "
            f"{file.sha256[:12]}. It was deleted. {_advice(file)}"
        )
    part.replace(place)
    verify.remember(place, digest)


def check_room(places: dict[WeightFile, Path]) -> None:
    """Raises a WeightsError if a disk has less room than the files that go there still need."""
    wanted: dict[int, list[tuple[WeightFile, Path]]] = defaultdict(list)
    for file, place in places.items():
        wanted[_existing(place).stat().st_dev].append((file, place))
    for group in wanted.values():
        missing = sum(max(0, file.size_bytes - _size(part_of(place))) for file, place in group)
        folder = _existing(group[0][1])
        free = shutil.disk_usage(folder).free
        if free < missing + SPARE_BYTES:
            raise WeightsError(
                f"{folder}: {(missing + SPARE_BYTES) / 1e6:,.0f} MB are needed there for "
                f"{', '.join(file.name for file, _ in group)}, and {free / 1e6:,.0f} MB are free. Make room, "
                "or name another models folder (--models, or extra_model_paths.yaml in ComfyUI)."
            )


def part_of(place: Path) -> Path:
    """Where a download lies until it is whole."""
    return place.with_name(f"{place.name}.part")


def address(file: WeightFile) -> str:
    """Where a file comes from: the hub, or the mirror that HF_ENDPOINT names."""
    from huggingface_hub import constants

    return constants.ENDPOINT + file.url.removeprefix(HUB) if _of_hub(file) else file.url


class _Part(io.BufferedWriter):
    """What has come of a file; refuses more than was asked for, and everything once it is given up."""

    def __init__(self, path: Path, file: WeightFile) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self.file = file
        self.given_up = False

    def write(self, data: bytes | bytearray | memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.given_up:
            raise InterruptedError("the download was cancelled")
        if self.tell() + len(data) > self.file.size_bytes:
            self.seek(0)
            self.truncate()
            raise WeightsError(
                f"{address(self.file)}: the server sends more than the {self.file.size_bytes:,} bytes of this file. "
                f"What came was deleted. {_advice(self.file)}"
            )
        return super().write(data)


def _transfer(file: WeightFile, part: Path) -> Task[None]:
    """Bring the part up to its full size."""
    if _size(part) > file.size_bytes:
        part.unlink()
    if _size(part) == file.size_bytes:
        return
    growing = _Part(part, file)
    with _telling(file), growing:
        growing.seek(0, os.SEEK_END)
        came = _in_background(lambda: _get(file, growing))
        try:
            while not _over(came):
                yield Progress(f"downloading {file.name}", growing.tell(), file.size_bytes)
        finally:
            growing.given_up = True
        growing.flush()
        os.fsync(growing.fileno())


def _get(file: WeightFile, growing: _Part) -> None:
    """The hub library's download, with its retries; the progress bar it would print is ours to show."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        build_hf_headers,
        disable_progress_bars,
        enable_progress_bars,
    )

    headers = build_hf_headers(library_name="latentsync-nodes", library_version=__version__) if _of_hub(file) else None
    silent = are_progress_bars_disabled(BAR)
    if not silent:
        disable_progress_bars(BAR)
    try:
        start = growing.tell()
        http_get(address(file), growing, resume_size=start, headers=headers, expected_size=file.size_bytes)
    finally:
        if not silent:
            enable_progress_bars(BAR)


def _in_background(run: Callable[[], None]) -> Future[None]:
    """Run in a thread that does not keep the program from ending."""
    came: Future[None] = Future()

    def work() -> None:
        try:
            came.set_result(run())
        except BaseException as error:  # handed to whoever waits
            came.set_exception(error)

    Thread(target=work, daemon=True).start()
    return came


def _over(came: Future[None]) -> bool:
    """Wait a moment; raises what went wrong."""
    if came not in wait([came], STEP_SECONDS).done:
        return False
    came.result()
    return True


@contextmanager
def _telling(file: WeightFile) -> Generator[None, None, None]:
    """Turns whatever the network or a full disk raises into one sentence."""
    try:
        import huggingface_hub.errors as hub_errors
    except ImportError as error:
        raise cannot_import("huggingface_hub", "huggingface_hub>=0.27", error, "get the files by hand") from error
    try:
        yield
    except WeightsError:
        raise
    except hub_errors.OfflineModeIsEnabled as error:
        raise WeightsError(
            f"{file.name}: not downloaded: HF_HUB_OFFLINE is set. Unset it, or get the file by hand from {file.url}"
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise WeightsError(f"{file.name}: the disk is full. Make room; the download goes on from there.") from error
        raise _failed(file, error) from error
    except Exception as error:
        raise _failed(file, error) from error


def _failed(file: WeightFile, error: Exception) -> WeightsError:
    answer = getattr(getattr(error, "response", None), "status_code", None)
    why = f"the server answered {answer}" if answer else (str(error).splitlines() or [type(error).__name__])[0]
    return WeightsError(f"{address(file)}: {why}. What came is kept. {_advice(file)}")


def _advice(file: WeightFile) -> str:
    mirror = "set HF_ENDPOINT to a mirror, " if _of_hub(file) else ""
    return f"Try again, {mirror}or get it by hand."


def _of_hub(file: WeightFile) -> bool:
    return file.url.startswith(f"{HUB}/")


@contextmanager
def _naming(folder: Path) -> Generator[None, None, None]:
    """Turns whatever a folder refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot be written to ({error}). Allow it, "
            "or name another models folder (--models, or extra_model_paths.yaml in ComfyUI)."
        ) from error


@contextmanager
def _alone(place: Path) -> Generator[None, None, None]:
    """Keeps a second download of the same file out, in any process; a killed one leaves no lock behind."""
    with locked(place.with_name(f".{place.name}.lock")) as held:
        if held is False:
            raise WeightsError(f"{place}: is being downloaded by another program: wait for it.")
        yield


def _existing(place: Path) -> Path:
    """The nearest folder above a place that is there."""
    return next(folder for folder in place.absolute().parents if folder.is_dir())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
