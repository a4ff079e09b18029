"""The next few items of an iterator, made in another thread while the last ones are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


PREFETCH_ITEMS = 4  # items made before they are needed: frames of 1080p take 25 MB


def prefetch(items: Iterator[T], count: int = PREFETCH_ITEMS) -> Generator[T, None, None]:
    """The same items in the same order; errors come where their item would have.

    Close it, or run it to its end: the other thread then rests, and whatever feeds it may be closed too.
    """
    end = object()
    with ThreadPoolExecutor(1, "ahead") as maker:
        waiting = deque(maker.submit(next, items, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(maker.submit(next, items, end))
                yield item  # type: ignore[misc] - the end is no T, and is not yielded
        finally:
            maker.shutdown(cancel_futures=True)
