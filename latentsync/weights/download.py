"""Download weights, verify the SHA-256, then rename the files atomically. Only this module uses the network.

`hf_hub_download` downloads files from the Hugging Face hub. `hf_hub_download` retries, and some versions resume a
partial download. `torch.hub` downloads other files. The module downloads each file into a hidden folder beside its
final path. When the hash is correct, the module moves the file to this path.
"""

from __future__ import annotations

import errno
import inspect
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import WeightsError, cannot_import, reason_of
from ..fileio import claim, sha256_file
from ..progress import Progress, Task
from .catalog import HUB, WeightFile
from .locate import Folders, destination

if TYPE_CHECKING:
    from tqdm import tqdm

PROGRESS_SECONDS = 0.2  # between two reports
SPARE_BYTES = 64 << 20  # disk space to leave free
UNIQUE_PARTIAL = re.compile(r"\.[0-9a-f]{8}\.incomplete$")  # files of huggingface_hub >= 1.18, never resumed


class CancelledError(Exception):
    """Raised in the download thread when the caller has stopped."""


@dataclass
class Transfer:
    """A download in progress, shared with its thread."""

    done_bytes: int = 0
    cancelled: bool = False


def download_files(files: Sequence[WeightFile], folders: Folders) -> Task[None]:
    """Download files into the models folders.

    Raises:
        WeightsError: the disk is too small or read-only, the network fails, or a hash does not match.
    """
    paths = {file: destination(file, folders) for file in files}
    check_disk_space(paths)
    for file, path in paths.items():
        yield from download_file(file, path)


def download_file(file: WeightFile, path: Path) -> Task[None]:
    """Download one file. The file gets its name when its hash is correct. An existing file stays unchanged."""
    with _folder_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with claim(path) as is_alone:
            if not is_alone():
                raise WeightsError(f"Another program is downloading {path}. Wait until that download ends.")
            if path.is_file():
                return
            _check_online(file)
            folder = partial_folder(path)
            folder.mkdir(exist_ok=True)
            for partial in [part for part in folder.rglob("*.incomplete") if UNIQUE_PARTIAL.search(part.name)]:
                partial.unlink()  # of a killed process
            complete = yield from _transfer(file, path)
            digest = yield from sha256_file(complete)
            with complete.open("r+b") as written:
                os.fsync(written.fileno())
            if digest == file.sha256:
                complete.replace(path)
            shutil.rmtree(folder, ignore_errors=True)
    if digest != file.sha256:
        raise WeightsError(
            f"{file.name} from {url_of(file)} has a wrong checksum. The SHA-256 is {digest}, not {file.sha256}. "
            f"LatentSync deleted the download. {_advice(file)}"
        )


def check_disk_space(paths: dict[WeightFile, Path]) -> None:
    """Raise a WeightsError if a disk does not have enough space for the files."""
    by_disk: dict[int, list[WeightFile]] = defaultdict(list)
    for file, path in paths.items():
        by_disk[_existing_folder(path).stat().st_dev].append(file)
    for files in by_disk.values():
        needed = sum(file.size_bytes - partial_bytes(paths[file]) for file in files) + SPARE_BYTES
        folder = _existing_folder(paths[files[0]])
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise WeightsError(
                f"{folder} has {free / 1e6:,.0f} MB of free space, but {', '.join(file.name for file in files)} need "
                f"{needed / 1e6:,.0f} MB. Free some space, or choose another models folder "
                "(--models, or extra_model_paths.yaml in ComfyUI)."
            )


def partial_folder(path: Path) -> Path:
    """The folder that contains a file until its download is complete."""
    return path.with_name(f".{path.name}.download")


def partial_bytes(path: Path) -> int:
    """The size of a partial download that will resume."""
    size = 0
    for partial in partial_folder(path).rglob("*.incomplete"):
        if not UNIQUE_PARTIAL.search(partial.name):
            with suppress(OSError):  # the download has just been completed
                size += partial.stat().st_size
    return size


def url_of(file: WeightFile) -> str:
    """The URL of a file. HF_ENDPOINT can replace the address of the hub with a mirror."""
    from huggingface_hub import constants

    return constants.ENDPOINT + file.url.removeprefix(HUB) if _is_on_hub(file) else file.url


def _transfer(file: WeightFile, path: Path) -> Task[Path]:
    """Download in a thread, and report its progress. Returns the complete file.

    If the caller stops, the thread stops at its next chunk. The thread cannot stop a download that does not call the
    progress bar. Such a download completes its file, and the next call uses this file.
    """
    transfer = Transfer()
    with _resumable(file, path):
        download = _from_hub if _is_on_hub(file) else _from_url
        future = _in_thread(lambda: download(file, partial_folder(path), transfer))
        try:
            while future not in wait([future], PROGRESS_SECONDS).done:
                yield Progress(f"downloading {file.name}", transfer.done_bytes or partial_bytes(path), file.size_bytes)
        finally:
            transfer.cancelled = True
        return future.result()


def _from_hub(file: WeightFile, folder: Path, transfer: Transfer) -> Path:
    from huggingface_hub import hf_hub_download

    owner, repository, _, revision, name = file.url.removeprefix(f"{HUB}/").split("/", 4)
    options: dict[str, Any] = {}
    if "tqdm_class" in inspect.signature(hf_hub_download).parameters:  # huggingface_hub >= 1.1
        options["tqdm_class"] = _bar_class(transfer)
    path = hf_hub_download(
        f"{owner}/{repository}",
        name,
        revision=revision,
        local_dir=folder,
        library_name="latentsync-nodes",
        library_version=__version__,
        **options,
    )
    return Path(path)


def _from_url(file: WeightFile, folder: Path, _: Transfer) -> Path:
    from torch.hub import download_url_to_file

    path = folder / file.name
    download_url_to_file(file.url, str(path), progress=False)
    return path


def _bar_class(transfer: Transfer) -> type[tqdm[Any]]:
    """A progress bar that shows nothing. The bar records the progress, and raises an error after a cancel."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - tqdm's own
            options.pop("name", None)  # an option of huggingface_hub's bars
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if transfer.cancelled:
                raise CancelledError
            self.n += n or 0
            transfer.done_bytes = max(transfer.done_bytes, int(self.n))

    return Bar


def _in_thread(run: Callable[[], Path]) -> Future[Path]:
    """Run a function in a daemon thread. Unlike an executor's thread, a daemon thread lets the program end."""
    future: Future[Path] = Future()

    def work() -> None:
        try:
            future.set_result(run())
        except BaseException as error:  # raised again by `future.result`
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future


def _check_online(file: WeightFile) -> None:
    """Raise an error if huggingface_hub is missing, or if the user forbids downloads."""
    try:
        from huggingface_hub import constants
    except ImportError as error:
        raise cannot_import("huggingface_hub", "huggingface_hub>=0.27", error, "download the files yourself") from error
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            f"{file.name} is missing, and HF_HUB_OFFLINE is set. Unset HF_HUB_OFFLINE, or download {file.url} yourself."
        )


@contextmanager
def _resumable(file: WeightFile, path: Path) -> Generator[None, None, None]:
    """Turn every error of the network or the disk into a WeightsError, and delete a download that cannot resume."""
    try:
        yield
    except Exception as error:
        note = " The next attempt continues this download." if partial_bytes(path) else ""
        if not note:
            shutil.rmtree(partial_folder(path), ignore_errors=True)
        raise WeightsError(
            f"{file.name} could not be downloaded from {url_of(file)} ({_reason(error)}).{note} {_advice(file)}"
        ) from error


def _reason(error: BaseException) -> str:
    """The HTTP status of an error if it has one, or else the first cause of the error, in one line."""
    while True:
        status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
        if isinstance(status, int):
            return f"the server answered {status}"
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return "the disk is full"
        if error.__cause__ is None:
            return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        error = error.__cause__


def _advice(file: WeightFile) -> str:
    mirror = "set HF_ENDPOINT to a mirror, " if _is_on_hub(file) else ""
    return f"Try again, {mirror}or download the file yourself."


def _is_on_hub(file: WeightFile) -> bool:
    return file.url.startswith(f"{HUB}/")


@contextmanager
def _folder_errors(folder: Path) -> Generator[None, None, None]:
    """Turn every error of a folder into a WeightsError."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{folder} cannot be written to ({reason_of(error)}). Check the permissions and the free space, or choose "
            "another models folder (--models, or extra_model_paths.yaml in ComfyUI)."
        ) from error


def _existing_folder(path: Path) -> Path:
    """The nearest existing folder above a path."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())
