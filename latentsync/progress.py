"""Long work on files, in steps: whoever runs it shows them, and may stop between two."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work on one file has come: `done` of `total` bytes; `what` says it in words, with the file's name."""

    what: str
    done: int
    total: int


Task = Generator[Progress, None, T]
"""Yields its steps and returns its result."""


def run(work: Task[T]) -> T:
    """Do small work at once, showing no step."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
