"""A pool of Ray actors. Each actor holds the networks, on a GPU or on some CPUs of a node."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from ..batch import ErrorOf, Finished, Make, work
from ..errors import DependencyError
from ..fileio import owner_prefix
from .connection import load_ray

log = logging.getLogger(__name__)

MAX_STARTS = 3  # starts of an actor that never becomes ready
START_SECONDS = 600  # time for the first worker to become ready
END_SECONDS = 10.0  # time for a killed actor to end
SETTLE_SECONDS = 0.5  # Ray can report the end of an actor shortly before its process ends


class Worker:
    """An actor. `make` creates the function that runs tasks and holds the networks."""

    def __init__(self, make: Callable[[], Make], error_of: ErrorOf) -> None:
        self._make = make()
        self._error_of = error_of

    def ready(self) -> str:
        """The prefix of the names of this actor's temporary files."""
        return owner_prefix()

    def work(self, task: Any) -> Finished:  # noqa: ANN401 - of a Job
        return work(None, task, self._make, self._error_of)


@dataclass
class _Slot:
    """An actor and its calls. A new actor can replace it.

    calls: unfinished calls, in their order: `ready` at first, then tasks.
    prefix: prefix of the actor's temporary files, once it is ready.
    """

    actor: Any
    calls: deque[Any] = field(default_factory=deque[Any])
    prefix: str = ""
    starts: int = 1


class Actors:
    """Workers of a cluster. If an actor ends unexpectedly, the pool replaces it as soon as a node has a free GPU or
    CPUs.

    Args:
        make, error_of: see `Worker`. Every node must have the modules of these functions.
        cpus: CPUs of an actor. None: a GPU for each actor, or 1 CPU if the cluster has no GPU.
        folders: folders of the outputs. The pool deletes the temporary files of dead actors there.
        calls_each: number of tasks that an actor can have at the same time. The actor runs its tasks one after the
            other.
    """

    def __init__(
        self,
        make: Callable[[], Make],
        error_of: ErrorOf,
        cpus: int | None,
        folders: Iterable[Path],
        calls_each: int = 1,
    ) -> None:
        self._ray = load_ray()
        self._folders = list(folders)
        self._calls_each = calls_each
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if gpus and cpus is None:
            count, options = gpus, {"num_gpus": 1, "num_cpus": 0}
        else:
            count, options = sum(int(node.get("CPU", 0)) // (cpus or 1) for node in nodes), {"num_cpus": cpus or 1}
        if count == 0:
            raise DependencyError(
                f"No node of the cluster has {cpus or 1} free CPUs or a GPU. Start nodes with more CPUs, or use fewer "
                "CPUs for each worker."
            )
        log.info("%d workers with %s each", count, options)
        # Ray must not restart actors or tasks, because the batch does
        self._new_actor = lambda: self._ray.remote(Worker).options(max_restarts=0, **options).remote(make, error_of)
        self._slots = [self._start() for _ in range(count)]
        self._ended_prefixes: list[str] = []
        self._is_starting = True
        self._began: float | None = None  # time of the first wait

    def idle(self) -> Sequence[Hashable]:
        """One entry for each task that a worker can take. Workers with the fewest tasks come first."""
        ready = [(len(slot.calls), i) for i, slot in enumerate(self._slots) if slot.prefix]
        free = [(count, i) for used, i in ready for count in range(used, self._calls_each)]
        return [i for _, i in sorted(free)]

    def start(self, worker: Hashable, task: Any) -> None:  # noqa: ANN401 - of a Job
        assert isinstance(worker, int)
        slot = self._slots[worker]
        slot.calls.append(slot.actor.work.remote(task))

    def wait(self, seconds: float) -> Iterator[Finished]:
        self._began = self._began or monotonic()
        calls = {slot.calls[0]: i for i, slot in enumerate(self._slots) if slot.calls}
        if not calls:
            sleep(seconds)
            return
        self._ray.wait(list(calls), timeout=seconds)  # for the first one
        ended, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for call in ended:
            i = calls[call]
            slot = self._slots[i]
            try:
                result = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                yield from self._replace(i, str(error).strip().splitlines()[-1])
                continue
            slot.calls.popleft()
            if isinstance(result, Finished):
                yield replace(result, worker=i)
                if result.is_internal:  # a GPU can fail in every later call of the process
                    yield from self._replace(i, result.result)
            else:
                slot.prefix, self._is_starting = result, False
        if self._is_starting and monotonic() - self._began > START_SECONDS:
            raise DependencyError(
                f'No worker of the cluster started in {START_SECONDS} s. Check with "ray status" that the nodes of the '
                "cluster have free GPUs or CPUs."
            )

    def close(self) -> None:
        try:
            for slot in self._slots:
                self._ray.kill(slot.actor, no_restart=True)
            for slot in self._slots:
                self._end(slot)
            sleep(SETTLE_SECONDS)
        finally:
            self._delete_files()

    def _start(self, starts: int = 1) -> _Slot:
        actor = self._new_actor()
        return _Slot(actor, deque([actor.ready.remote()]), starts=starts)

    def _replace(self, i: int, reason: str) -> Iterator[Finished]:
        """Replace a dead or broken actor with a new actor. Yields a result for each task of the old actor."""
        slot = self._slots[i]
        log.info("Worker %d is lost: %s", i, reason)
        self._end(slot)
        self._delete_files()
        was_ready = bool(slot.prefix)
        if not was_ready and slot.starts == MAX_STARTS:
            raise DependencyError(
                f"A worker of the cluster cannot start ({reason}). Check the free VRAM of the nodes, and install "
                "LatentSync with its requirements on every node."
            )
        self._slots[i] = self._start(1 if was_ready else slot.starts + 1)
        if was_ready:
            yield from (Finished(i, f"Its worker was lost ({reason}).", is_done=False, lost=True) for _ in slot.calls)

    def _end(self, slot: _Slot) -> None:
        """Kill an actor, and wait for its end."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(slot.actor, no_restart=True)
            self._ray.get(slot.actor.ready.remote(), timeout=END_SECONDS)
        if slot.prefix:
            self._ended_prefixes.append(slot.prefix)

    def _delete_files(self) -> None:
        """Delete the temporary files of all actors that ended."""
        patterns = [(folder, f"{prefix}*") for folder in self._folders for prefix in self._ended_prefixes]
        for path in [path for folder, pattern in patterns for path in folder.glob(pattern)]:
            with suppress(OSError):
                path.unlink(missing_ok=True)
