"""Where the latents and the audio states of a clip are kept: in memory while few, else in a file without a name."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO

import numpy as np
import torch

from .errors import StorageError

MEMORY_BYTES = 256 * 2**20  # of one clip's latents, or of its states, held in memory


class TensorBuffer:
    """Gathers rows of one shape, some at a time, in half precision. Used as a context manager.

    The file is opened without a name where the system can do that, and vanishes with the last tensor that shows it,
    even if the process is killed: nothing to clean up, and nothing that two jobs could share.

    Args:
        contents: what errors call the rows.
        most: how many there may be at most.
        folder: for the file, if they need one; None is the system's folder for temporary files.
    """

    def __init__(self, contents: str, most: int, folder: Path | None = None) -> None:
        self._contents = contents
        self._most = most
        self._folder = folder
        self._memory: torch.Tensor | None = None
        self._file: IO[bytes] | None = None
        self._shape: tuple[int, ...] = ()
        self._count = 0

    def append(self, rows: torch.Tensor) -> range:
        """Keep some more, (n, ...) of any floating dtype; they become fp16.

        Returns:
            where they lie among all.

        Raises:
            StorageError: the folder cannot be written, or is full.
        """
        if self._count == 0:
            self._open(rows.shape[1:])
        slots = range(self._count, self._count + len(rows))
        halves = rows.to("cpu", torch.float16)
        if self._file is not None:
            self._write(self._file, halves)
        elif self._memory is not None:
            self._memory[slots.start : slots.stop] = halves
        self._count = slots.stop
        return slots

    def tensor(self) -> torch.Tensor:
        """All of them, fp16 (count, ...); from a file they come page by page, as they are read."""
        if self._memory is not None:
            return self._memory[: self._count]
        if self._file is None:
            return torch.empty(0, dtype=torch.float16)
        mapped = np.memmap(self._file, np.float16, mode="c", shape=(self._count, *self._shape))
        return torch.from_numpy(np.asarray(mapped))

    def __enter__(self) -> TensorBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, shape: torch.Size) -> None:
        self._shape = tuple(shape)
        if self._most * shape.numel() * torch.float16.itemsize <= MEMORY_BYTES:
            self._memory = torch.empty(self._most, *shape, dtype=torch.float16)
            return
        try:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed on leaving the block
        except OSError as cause:
            raise self._failure(cause) from cause

    def _write(self, file: IO[bytes], halves: torch.Tensor) -> None:
        try:
            file.write(halves.contiguous().numpy().tobytes())
            file.flush()
        except OSError as cause:
            raise self._failure(cause) from cause

    def _failure(self, cause: OSError) -> StorageError:
        where = self._folder or "the system's folder for temporary files"
        needed = self._most * int(np.prod(self._shape)) * torch.float16.itemsize
        return StorageError(
            f"{where}: cannot hold {self._contents} ({cause.strerror or cause}); "
            f"it needs {needed / 2**20:.0f} MB of free space and the right to write"
        )
