"""Append-only tensor buffer. A buffer of more than 256 MB is in an anonymous temporary file."""

from __future__ import annotations

from math import prod
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from types import TracebackType
from typing import IO
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from .errors import StorageError, reason_of

MEMORY_BYTES = 256 * 2**20  # largest buffer that is kept in RAM


class TensorBuffer:
    """Collects rows of one shape and dtype. Close the buffer with a `with` block, or delete all references to the
    buffer.

    The temporary file has no name on systems that allow this. The system deletes the file with the last tensor that
    maps it, even if the process is killed. No other cleanup is necessary, and two runs never share a file.

    Args:
        contents: name of the rows in errors.
        max_rows: number of rows that the buffer can hold.
        folder: folder of the temporary file. None: the system's temporary folder.
        dtype: dtype of the stored rows.
    """

    def __init__(
        self, contents: str, max_rows: int, folder: Path | None = None, dtype: torch.dtype = torch.float16
    ) -> None:
        self._contents = contents
        self._max_rows = max_rows
        self._folder = folder
        self._dtype = dtype
        self._memory: Tensor | None = None
        self._file: IO[bytes] | None = None
        self._row_shape: tuple[int, ...] = ()
        self._num_rows = 0

    def append(self, rows: Tensor) -> range:
        """Add rows (n, ...) of any floating dtype.

        Returns:
            The indices of the new rows in the buffer.

        Raises:
            StorageError: the folder is full or not writable.
        """
        rows = rows.to("cpu", self._dtype)
        try:
            if self._num_rows == 0:
                self._open(rows.shape[1:])
            if self._file is not None:
                self._file.seek(self._num_rows * self._row_bytes)  # over the rest of a write that failed
                self._file.write(rows.contiguous().view(torch.uint8).numpy().tobytes())
                self._file.flush()
        except OSError as cause:
            megabytes = self._max_rows * self._row_bytes / 2**20
            raise StorageError(
                f"{self._folder or gettempdir()} cannot store {self._contents} ({reason_of(cause)}). "
                f"Free {megabytes:.0f} MB in this folder, and check that it is writable."
            ) from cause
        indices = range(self._num_rows, self._num_rows + len(rows))
        if self._memory is not None:
            self._memory[indices.start : indices.stop] = rows
        self._num_rows = indices.stop
        return indices

    def tensor(self) -> Tensor:
        """All rows (n, ...). The buffer memory-maps the file instead of loading it into RAM."""
        if self._memory is not None:
            return self._memory[: self._num_rows]
        if self._file is None:
            return torch.empty(0, dtype=self._dtype)
        mapped = np.memmap(self._file, np.uint8, mode="c", shape=(self._num_rows, self._row_bytes))
        return torch.from_numpy(np.asarray(mapped)).view(self._dtype).unflatten(1, self._row_shape)

    def __enter__(self) -> TensorBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, row_shape: torch.Size) -> None:
        self._row_shape = tuple(row_shape)
        if self._max_rows * self._row_bytes <= MEMORY_BYTES:
            self._memory = torch.empty(self._max_rows, *row_shape, dtype=self._dtype)
        else:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - __exit__ or the finalizer closes it
            finalize(self, self._file.close)

    @property
    def _row_bytes(self) -> int:
        return prod(self._row_shape) * self._dtype.itemsize
