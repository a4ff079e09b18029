"""Run an iterator in a background thread, a few items ahead of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

PREFETCH_ITEMS = 4  # items that are ready before the consumer needs them. Frames of 1080p take 25 MB


def prefetch(items: Iterator[T], count: int = PREFETCH_ITEMS) -> Generator[T, None, None]:
    """Yield the same items in the same order. If an item fails, raise the error in its place.

    Close the generator, or read all its items. In both cases, the background thread closes `items` before the generator
    ends. A canceled run therefore leaves no file open.
    """
    end = object()
    close: Callable[[], None] | None = getattr(items, "close", None)  # generators have it
    with ThreadPoolExecutor(1, "prefetch") as worker:
        pending = deque(worker.submit(next, items, end) for _ in range(count))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(worker.submit(next, items, end))
                yield item  # type: ignore[misc] - `end` is not a T, and is never yielded
        finally:
            for future in pending:
                future.cancel()
            if close is not None:
                worker.submit(close).result()
