"""Working on less at once where memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .errors import OutOfMemoryError

T = TypeVar("T")


REMEDY = "close what else uses it, or choose version 1.5 or precision fp8"


OOM_PHRASES = ("out of memory", "allocate memory", "alloc_failed", "video memory")
"""Of backends, which have no error in common: CUDA and MPS, the processor's allocator, cuBLAS and cuDNN, DirectML."""


class BatchLimit:
    """How much is worked on at once: halved for good whenever memory runs out.

    Args:
        most: at first.
        what: is worked on, in the error's words.
    """

    def __init__(self, most: int, what: str) -> None:
        self.max_batch = most
        self._what = what

    def run(self, work: Callable[[int], T], asked: int) -> T:
        """The result of `work(most)`, with less until it succeeds.

        Args:
            work: does all there is to do, so many at once.
            asked: how many there are.

        Raises:
            RoomError: one at a time is too much.
        """
        while True:
            at_once = min(self.max_batch, asked)
            try:
                return work(at_once)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            # only here is what the failed attempt held free again: the error kept it
            if at_once == 1:
                raise OutOfMemoryError(_message(f"with {self._what} one at a time", reason))
            self.max_batch = at_once // 2

    def __repr__(self) -> str:
        return f"Room({self.max_batch} {self._what})"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend, or a Room, said that there is no memory left."""
    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OOM_PHRASES)


def out_of_memory_error(error: BaseException) -> OutOfMemoryError:
    """What is said of a backend's own error, in a sentence; a RoomError has said it."""
    return OutOfMemoryError(str(error) if isinstance(error, OutOfMemoryError) else _message("", str(error)))


def _message(when: str, reason: str) -> str:
    """`reason` is cut to its own first sentence: torch's goes on with figures of its allocator."""
    first = reason.partition("\n")[0].partition(". ")[0]
    return f"out of memory{when and ' '}{when}: {REMEDY}{first and f' ({first})'}"
