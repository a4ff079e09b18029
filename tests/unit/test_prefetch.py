"""Prefetched items are the same items, and nothing stays open or running after the consumer stops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.prefetch import prefetch
from latentsync.video.video_file import VideoFile
from tests.support.numbered_clip import make_clip


class Numbers:
    """A generator of numbers that notes what it does."""

    def __init__(self, count: int, fail_at: int = -1) -> None:
        self.yielded: list[int] = []
        self.threads: set[str] = set()
        self.closed_in = ""
        self.items = self._items(count, fail_at)

    def _items(self, count: int, fail_at: int) -> Iterator[int]:
        try:
            for number in range(count):
                if number == fail_at:
                    raise ValueError(f"no {number}")
                self.yielded.append(number)
                self.threads.add(threading.current_thread().name)
                yield number
        finally:
            self.closed_in = threading.current_thread().name


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_prefetch_keeps_items_in_order(count: int) -> None:
    assert list(prefetch(Numbers(count).items)) == list(range(count))
    assert list(prefetch(iter(range(count)))) == list(range(count)), "an iterator without close()"


def test_prefetch_raises_error_after_earlier_items() -> None:
    items = prefetch(Numbers(10, fail_at=6).items)
    assert [next(items) for _ in range(6)] == list(range(6))
    with pytest.raises(ValueError, match="no 6"):
        next(items)


def test_prefetch_runs_a_few_items_ahead() -> None:
    numbers, fourth = Numbers(100), threading.Event()

    def watched() -> Iterator[int]:
        for number in numbers.items:
            if number == 3:
                fourth.set()
            yield number

    items = prefetch(watched(), 4)
    next(items)
    assert fourth.wait(10)
    items.close()
    assert len(numbers.yielded) <= 6
    assert numbers.threads == {"prefetch_0"}


def test_prefetch_close_waits_for_current_item() -> None:
    numbers = Numbers(100)
    items = prefetch(numbers.items)
    next(items)
    items.close()
    count = len(numbers.yielded)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert len(numbers.yielded) == count


def test_prefetch_close_closes_the_items_in_the_worker() -> None:
    numbers = Numbers(100)
    items = prefetch(numbers.items)
    next(items)
    assert not numbers.closed_in
    items.close()
    assert numbers.closed_in == "prefetch_0", "although this test still refers to the generator"


def test_prefetch_error_of_the_consumer_closes_the_items() -> None:
    numbers = Numbers(100)
    items = prefetch(numbers.items)
    next(items)
    with pytest.raises(RuntimeError, match="cancelled"):
        items.throw(RuntimeError("cancelled"))
    assert numbers.closed_in == "prefetch_0"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for open files in /proc")
def test_prefetch_close_closes_the_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_clip(path, range(60))

    def is_open() -> bool:
        return any(handle.resolve() == path for handle in Path("/proc/self/fd").iterdir())

    frames = VideoFile(path).read(range(60))
    items = prefetch(frames)
    next(items)
    assert is_open()
    items.close()
    assert not is_open(), "although this test still refers to the read"
