"""Recognize out-of-memory errors, and retry with smaller batches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from .errors import OutOfMemoryError

log = logging.getLogger(__name__)

T = TypeVar("T")

# these errors have no common type
OOM_PHRASES = (
    "out of memory",  # CUDA, MPS
    "allocate memory",  # PyTorch's CPU allocator
    "alloc_failed",  # cuBLAS, cuDNN
    "allocation_failed",  # cuDNN 9
    "cublas_status_not_initialized",  # no memory for cuBLAS itself
    "unable to find an engine to execute",  # no memory for any kernel of cuDNN
    "out_of_device_memory",  # Intel
    "out_of_resources",  # Intel
    "video memory",  # DirectML
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend or a BatchLimit ran out of memory."""
    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in OOM_PHRASES)


class BatchLimit:
    """The largest batch that fits in VRAM. Each out-of-memory error halves the limit permanently.

    Args:
        max_batch: the initial limit.
        network: name of the network in errors and in the log.
        is_oom: recognizes an out-of-memory error.
    """

    def __init__(
        self, max_batch: int, network: str, is_oom: Callable[[BaseException], bool] = is_out_of_memory
    ) -> None:
        self.max_batch = max_batch
        self._network = network
        self._is_oom = is_oom

    def run(self, function: Callable[[int], T], count: int) -> T:
        """Call `function(batch_size)` with smaller and smaller batches until one fits in VRAM. Return its result.

        Args:
            function: processes all items, at most `batch_size` of them together.
            count: the number of items.

        Raises:
            OutOfMemoryError: not even a batch of 1 fits.
        """
        while True:
            batch_size = min(self.max_batch, count)
            try:
                return function(batch_size)
            except (RuntimeError, MemoryError) as error:
                if not self._is_oom(error):
                    raise
                reason = str(error)
            # retry outside `except`: the traceback keeps the failed attempt's tensors alive
            if batch_size == 1:
                raise OutOfMemoryError(_message(f" in {self._network}, even at batch size 1", reason))
            self.max_batch = min(self.max_batch, batch_size // 2)
            log.warning(
                "Out of memory in %s. LatentSync reduces the batch size from %d to %d.",
                self._network,
                batch_size,
                self.max_batch,
            )

    def __repr__(self) -> str:
        return f"BatchLimit({self.max_batch} in {self._network})"


def out_of_memory_error(error: BaseException) -> OutOfMemoryError:
    """The error with a message for the user, from a backend's error. An error of a BatchLimit keeps its message."""
    return OutOfMemoryError(str(error) if isinstance(error, OutOfMemoryError) else _message("", str(error)))


def _message(where: str, reason: str) -> str:
    # the first sentence of torch's text, because statistics of the allocator follow it
    detail = reason.partition("\n")[0].partition(". ")[0].rstrip(".")
    cause = f" ({detail})" if detail else ""
    return (
        f"Out of memory{where}{cause}. Close other programs that use the GPU. If the memory is still not enough, "
        "choose version 1.5, or precision fp8 in Load Model."
    )
