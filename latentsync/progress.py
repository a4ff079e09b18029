"""Progress of long tasks. A task is a generator that yields its progress. The caller can show the progress, or stop the
task.

A `ShowProgress` is a function of the caller. The library passes the items of a loop through this function. The function
can draw a bar, or raise an error to stop the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

T = TypeVar("T")

BAR_DELAY_SECONDS = 0.5  # a task that ends sooner draws no bar


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a task on one file: `done` of `total` bytes. `what` names the task and the file."""

    what: str
    done: int
    total: int


Task = Generator[Progress, None, T]
"""A long task on files: a generator that yields its progress and returns its result."""

ShowProgress = Callable[[Iterator[Any], str, int], Iterator[Any]]
"""Yields the items of an iterator. Arguments: the iterator, the name of the stage, the number of items."""


def duration_text(seconds: float) -> str:
    """A rounded time as text: 40 s, 2 min, 1 h 5 min."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def run(task: Task[T]) -> T:
    """Run a task without showing its progress, and return its result."""
    while True:
        try:
            next(task)
        except StopIteration as end:
            return end.value


def progress_bar(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """Yield the items, and draw a progress bar on stderr."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=stage, total=total))


def run_with_progress(task: Task[T]) -> T:
    """Run a task, draw a progress bar for each file on stderr, and return the result."""
    from tqdm import tqdm

    results: list[T] = []

    def steps() -> Iterator[Progress]:
        results.append((yield from task))

    with closing(task):
        for what, group in groupby(steps(), key=lambda step: step.what):
            with tqdm(desc=what, unit="B", unit_scale=True, delay=BAR_DELAY_SECONDS) as bar:
                for step in group:
                    bar.total = step.total
                    bar.update(step.done - bar.n)
    return results[0]


def shown(items: Iterator[T], stage: str, total: int, progress: ShowProgress | bool) -> Iterator[T]:
    """Yield the items, and show the progress. True draws a bar on stderr, False shows nothing."""
    if progress is False:
        return items
    return progress_bar(items, stage, total) if progress is True else progress(items, stage, total)
