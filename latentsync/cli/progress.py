"""Progress bars of the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ..progress import Progress, Task

if TYPE_CHECKING:
    from tqdm import tqdm


T = TypeVar("T")


DELAY_SECONDS = 0.5  # work that is over by then needs no bar


def progress_bar(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on under a progress bar on stderr."""
    from tqdm import tqdm

    return iter(tqdm(items, desc=what, total=total, file=sys.stderr))


def run_with_progress(work: Task[T]) -> T:
    """Do the work under progress bars on stderr, one for each of its parts, and return its result."""
    bar: tqdm[NoReturn] | None = None
    what = ""
    try:
        while True:
            step = next(work)
            if bar is None or step.what != what:
                bar, what = _next_bar(bar, step), step.what
            bar.update(step.done - bar.n)
    except StopIteration as end:
        return end.value
    finally:
        work.close()
        if bar is not None:
            bar.close()


def _next_bar(last: tqdm[NoReturn] | None, step: Progress) -> tqdm[NoReturn]:
    from tqdm import tqdm

    if last is not None:
        last.close()
    return tqdm(desc=step.what, total=step.total, unit="B", unit_scale=True, delay=DELAY_SECONDS, file=sys.stderr)
