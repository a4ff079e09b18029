"""The pool of actors, with a stand-in for Ray.

The main process keeps no task and no result of a long video: what lives at a time does not grow with its length.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from weakref import WeakSet

import pytest

from latentsync.batch import Finished
from latentsync.cluster import actors
from latentsync.cluster.actors import Actors
from latentsync.cluster.windows import InOrder

WORKERS, CALLS_EACH, AHEAD = 2, 2, 8


class Counted:
    """A task, a result or a reference to a result. `alive` has all that are not deleted."""

    alive: ClassVar[WeakSet[Counted]] = WeakSet()

    def __init__(self, content: Any = None) -> None:
        self.content = content
        self.alive.add(self)


class InstantRay:
    """Ray's interface for actors. A call ends at once. The reference to its result keeps its task and its result."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def nodes(self) -> Sequence[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(WORKERS)}}]

    def remote(self, _: type) -> InstantRay:
        return self

    def options(self, **_: Any) -> Any:
        actor = SimpleNamespace(ready=self._method(lambda: "prefix"), work=self._method(self._work))
        return SimpleNamespace(remote=lambda *_: actor)

    def wait(
        self, calls: list[Counted], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Counted], list[Counted]]:
        assert timeout is not None
        return calls[:num_returns], calls[num_returns:]

    def get(self, call: Counted, timeout: float | None = None) -> Any:
        assert timeout is None
        return call.content[-1]

    def kill(self, _: Any, no_restart: bool) -> None:
        assert no_restart

    @staticmethod
    def _work(_: Counted) -> Finished:
        return Finished(None, Counted(), is_done=True)

    @staticmethod
    def _method(result: Callable[..., Any]) -> Any:
        return SimpleNamespace(remote=lambda *task: Counted([*task, result(*task)]))


def test_actors_close_deletes_files_of_actors_that_end_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An actor creates a file after Ray has reported its end, and another program has files there, too."""
    (tmp_path / "other.part").touch()
    monkeypatch.setattr(actors, "load_ray", InstantRay)
    monkeypatch.setattr(actors, "sleep", lambda _: (tmp_path / "prefix.part").touch())
    monkeypatch.setattr(InstantRay, "get", lambda self, call, timeout=None: call.content[-1])  # noqa: ARG005
    pool = Actors(lambda: lambda task: task, lambda _: None, None, [tmp_path], CALLS_EACH)
    list(pool.wait(0))
    pool.close()
    assert [path.name for path in tmp_path.iterdir()] == ["other.part"]


def test_actors_wait_returns_a_result_of_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "load_ray", InstantRay)
    pool = Actors(lambda: lambda task: task, lambda _: None, None, [], CALLS_EACH)
    assert not list(pool.wait(0))
    assert len(pool.idle()) == WORKERS * CALLS_EACH, "all are ready after one wait"
    for worker in pool.idle():
        pool.start(worker, Counted())
    for _ in range(CALLS_EACH):
        assert [finished.worker for finished in pool.wait(0)] == list(range(WORKERS))


@pytest.mark.parametrize("count", [50, 500])
def test_actors_keep_no_tasks_or_results(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(actors, "load_ray", InstantRay)
    pool, alive = Actors(lambda: lambda task: task, lambda _: None, None, [], CALLS_EACH), list[int]()

    def tasks() -> Iterator[Any]:
        for _ in range(count):
            yield Counted()

    for result in InOrder(pool)(tasks(), AHEAD):
        assert isinstance(result, Counted)
        alive.append(len(Counted.alive))
    assert len(alive) == count
    # a task, its result and the reference for each unfinished task, and the last result
    assert max(alive) <= 3 * AHEAD + 1, max(alive)
    del result
    gc.collect()
    assert not Counted.alive
