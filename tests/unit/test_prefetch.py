"""Items that a background thread prepares are the same items, and the thread stops when it is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from latentsync.prefetch import prefetch


def numbers(count: int, fail_at: int = -1) -> Iterator[int]:
    for number in range(count):
        if number == fail_at:
            raise ValueError(f"no {number}")
        yield number


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_prefetch_keeps_items_in_order(count: int) -> None:
    assert list(prefetch(numbers(count))) == list(range(count))


def test_prefetch_raises_error_after_earlier_items() -> None:
    made = prefetch(numbers(10, fail_at=6))
    assert [next(made) for _ in range(6)] == list(range(6))
    with pytest.raises(ValueError, match="no 6"):
        next(made)


def test_prefetch_runs_a_few_items_ahead() -> None:
    began: list[tuple[int, str]] = []
    fourth = threading.Event()

    def watched() -> Iterator[int]:
        for number in numbers(100):
            began.append((number, threading.current_thread().name))
            if number == 3:
                fourth.set()
            yield number

    made = prefetch(watched(), 4)
    next(made)
    assert fourth.wait(10)
    made.close()
    assert len(began) <= 6
    assert {name for _, name in began} == {"ahead_0"}


def test_prefetch_close_waits_for_current_item() -> None:
    made_so_far: list[int] = []

    def noted() -> Iterator[int]:
        for number in numbers(100):
            made_so_far.append(number)
            yield number

    made = prefetch(noted())
    next(made)
    made.close()
    count = len(made_so_far)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    assert len(made_so_far) == count
