"""Tasks of one video on a pool of workers: their order, how many are started, and what happens to lost tasks."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import pytest

from latentsync.batch import MAX_LOSSES, Finished
from latentsync.cluster.windows import InOrder
from latentsync.errors import LatentSyncError

CALLS_EACH = 2


class ShuffledPool:
    """Workers that negate numbers. Any of them ends next. `losses` workers die with all their tasks."""

    def __init__(self, workers: int, seed: int = 0, losses: int = 0) -> None:
        self.chance = random.Random(seed)
        self.losses = losses
        self.queues: list[deque[Any]] = [deque() for _ in range(workers)]
        self.started: list[Any] = []

    def idle(self) -> Sequence[Hashable]:
        return [i for count in range(CALLS_EACH) for i, queue in enumerate(self.queues) if len(queue) <= count]

    def start(self, worker: Hashable, task: Any) -> None:
        assert isinstance(worker, int)
        self.queues[worker].append(task)
        self.started.append(task)

    def wait(self, seconds: float) -> Iterator[Finished]:
        busy = [i for i, queue in enumerate(self.queues) if queue]
        if not seconds and (not busy or self.chance.random() < 0.5):
            return
        worker = self.chance.choice(busy)
        if self.losses and self.chance.random() < 0.3:
            self.losses -= 1
            lost = len(self.queues[worker])
            self.queues[worker].clear()
            yield from [Finished(worker, "It died.", is_done=False, lost=True)] * lost
        else:
            task = self.queues[worker].popleft()
            yield self.finished(worker, task)

    def finished(self, worker: int, task: Any) -> Finished:
        return Finished(worker, -task, is_done=True)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(5))
def test_in_order_keeps_the_order_when_workers_die(seed: int) -> None:
    pool = ShuffledPool(3, seed, losses=6)
    assert list(InOrder(pool)(range(40), 100)) == [-i for i in range(40)]
    assert pool.losses == 0
    assert 40 < len(pool.started) <= 40 + 6 * CALLS_EACH, "only the tasks of a dead worker run again"


@pytest.mark.parametrize(("workers", "ahead"), [(2, 100), (3, 4), (1, 1)])
def test_in_order_takes_tasks_when_needed(workers: int, ahead: int) -> None:
    pool, taken = ShuffledPool(workers), 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for task in range(50):
            taken += 1
            yield task

    waiting: list[int] = []
    for done, _ in enumerate(InOrder(pool)(tasks(), ahead)):
        waiting.append(taken - done)
        assert all(len(queue) <= CALLS_EACH for queue in pool.queues)
    assert max(waiting) <= ahead
    assert pool.started == list(range(50))


def test_in_order_starts_tasks_before_each_result() -> None:
    """The first task ends last. While the 31 results that waited for it are read, the workers get new tasks."""

    class Late(ShuffledPool):
        def wait(self, seconds: float) -> Iterator[Finished]:
            if seconds:
                queue = next((queue for queue in self.queues if queue and queue[0]), self.queues[0])
                yield self.finished(self.queues.index(queue), queue.popleft())

    pool, ahead = Late(3), 32
    results = InOrder(pool)(range(100), ahead)
    assert [next(results) for _ in range(20)] == [-i for i in range(20)]
    assert sum(map(len, pool.queues)) == 3 * CALLS_EACH
    assert list(results) == [-i for i in range(20, 100)]


def test_in_order_two_calls_share_the_workers() -> None:
    """A third call is abandoned. Its results go to nobody."""
    pool = ShuffledPool(2, losses=3)
    in_order = InOrder(pool)
    abandoned = in_order(range(1000, 1050), 8)
    assert [next(abandoned) for _ in range(3)] == [-1000, -1001, -1002]
    first, second = in_order(range(20), 4), in_order(range(100, 120), 4)
    assert list(zip(first, second, strict=True)) == [(-i, -100 - i) for i in range(20)]


def test_in_order_without_tasks_yields_nothing() -> None:
    assert list(InOrder(ShuffledPool(2))([], 4)) == []


def test_in_order_error_of_a_worker_ends_the_call() -> None:
    class Failing(ShuffledPool):
        def finished(self, worker: int, task: Any) -> Finished:
            return Finished(worker, "No memory.", is_done=task != 5)

    results = InOrder(Failing(2))(range(9), 9)
    with pytest.raises(LatentSyncError, match=r"^A worker of the cluster failed: No memory\.$"):
        list(results)


def test_in_order_task_that_kills_workers_ends_the_call() -> None:
    class Deadly(ShuffledPool):
        def finished(self, worker: int, task: Any) -> Finished:
            is_done = task != 2
            return Finished(worker, "It died.", is_done=is_done, is_internal=not is_done)

    pool = Deadly(2)
    with pytest.raises(LatentSyncError, match=r"It died\."):
        list(InOrder(pool)(range(4), 4))
    assert pool.started.count(2) == MAX_LOSSES + 1
