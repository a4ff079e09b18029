"""Working on less at once where memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import RoomError

T = TypeVar("T")

REMEDY = "choose version 1.5 or precision fp8, or close what else uses the memory"
WORDS = ("out of memory", "allocate memory", "not enough memory")  # of backends that raise a plain RuntimeError


class Room:
    """How much is worked on at once: halved for good whenever memory runs out.

    Args:
        most: at first.
        what: is worked on, in the error's words.
    """

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self._what = what

    def run(self, work: Callable[[int], T]) -> T:
        """The result of `work(most)`, with less until it succeeds.

        Raises:
            RoomError: one at a time is too much.
        """
        while True:
            try:
                return work(self.most)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error)
            # only here is what the failed attempt held free again: the error kept it
            self._shrink(reason)

    def _shrink(self, reason: str) -> None:
        if self.most == 1:
            raise RoomError(_sentence(f"with {self._what} one at a time", reason))
        self.most //= 2

    def __repr__(self) -> str:
        return f"Room({self.most} {self._what})"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a backend said that it has no memory left."""
    if isinstance(error, (RoomError, torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)


def room_error(error: BaseException) -> RoomError:
    """What is said of a backend's own error, in a sentence; a RoomError has said it."""
    return RoomError(str(error) if isinstance(error, RoomError) else _sentence("", str(error)))


def _sentence(when: str, reason: str) -> str:
    said = reason.partition("\n")[0]
    return f"out of memory{when and ' '}{when}: {REMEDY} ({said})"
