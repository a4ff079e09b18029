"""Encode, denoise and decode the windows of one video on the workers of a cluster."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Any

from torch import Tensor

from ..batch import MAX_LOSSES, POLL_SECONDS, Make, Pool
from ..errors import LatentSyncError
from ..oom import BatchLimit
from ..pipeline import LipSyncPipeline
from ..sampling.sampler import CFG_BATCH, CroppedWindow, StepOutput, denoise_windows, encode_window
from ..sampling.settings import SamplerSettings

log = logging.getLogger(__name__)

WINDOWS_AHEAD = 512  # windows from the oldest one without a result. At 512 pixels, each has latents of 1 MB
IMAGES_AHEAD = 8  # batches of decoded faces that are ready or on their way. At 512 pixels, each has 50 MB
RunTask = Callable[[LipSyncPipeline, BatchLimit], Any]
"""A task for a worker. It receives the worker's networks and the largest batch of the UNet."""


@dataclass(eq=False)
class _Call:
    """The tasks of one call of `InOrder`, by their numbers.

    tasks: tasks that were not taken yet, with their numbers.
    ahead: largest number of unfinished tasks.
    unfinished: tasks whose result was not yielded yet. None: the result is ready, but waits for an older result.
    lost: tasks whose worker was lost, the oldest first.
    """

    tasks: Iterator[tuple[int, RunTask]]
    ahead: int
    has_more: bool = True
    unfinished: dict[int, RunTask | None] = field(default_factory=dict[int, RunTask | None])
    lost: list[int] = field(default_factory=list[int])
    results: dict[int, Any] = field(default_factory=dict[int, Any])
    losses: Counter[int] = field(default_factory=Counter[int])

    def take(self) -> int | None:
        """The number of the next task to start, a lost task first. None: no task can start now."""
        if self.lost:
            return heappop(self.lost)
        if not self.has_more or len(self.unfinished) >= self.ahead:
            return None
        number, task = next(self.tasks, (None, None))
        self.has_more = number is not None
        if number is not None:
            self.unfinished[number] = task
        return number


class InOrder:
    """Runs tasks on a pool and yields their results in order. If a worker is lost, another worker runs its tasks.

    Several calls can run at the same time. The results of an abandoned call are dropped.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._running: dict[Hashable, deque[tuple[_Call, int]]] = {}

    def __call__(self, tasks: Iterable[RunTask], ahead: int) -> Iterator[Any]:
        """The result of each task.

        The caller may need much time for each result. Before each result, all free workers therefore get new tasks.

        Args:
            tasks: the tasks. Each one is taken only when a worker is free.
            ahead: largest number of started tasks whose result was not yielded yet.

        Raises:
            LatentSyncError: a worker reports an error, or one task loses more than `MAX_LOSSES` workers.
        """
        call, oldest = _Call(enumerate(tasks), ahead), 0
        while call.has_more or call.unfinished:
            self._start(call)
            if oldest in call.results:
                yield call.results.pop(oldest)
                del call.unfinished[oldest]
                oldest += 1
                self._collect(0)
            elif call.has_more or call.unfinished:
                self._collect(POLL_SECONDS)

    def _start(self, call: _Call) -> None:
        """Give tasks to all workers that can take one."""
        for worker in self._pool.idle():
            number = call.take()
            if number is None:
                return
            self._running.setdefault(worker, deque()).append((call, number))
            self._pool.start(worker, call.unfinished[number])

    def _collect(self, seconds: float) -> None:
        """Wait for results of any call, at most `seconds`."""
        error: str | None = None
        for finished in self._pool.wait(seconds):
            call, number = self._running[finished.worker].popleft()
            if finished.is_done:
                call.results[number], call.unfinished[number] = finished.result, None
                continue
            call.losses[number] += 1
            if call.losses[number] > MAX_LOSSES or not (finished.lost or finished.is_internal):
                error = finished.result
                continue
            log.info("Task %d runs again: %s", number, finished.result)
            heappush(call.lost, number)
        if error is not None:
            raise LatentSyncError(f"A worker of the cluster failed: {error}")


class ClusterWorkers:
    """The `Workers` protocol for a pool of workers.

    Args:
        pool: workers that run `new_worker`.
    """

    def __init__(self, pool: Pool) -> None:
        self._in_order = InOrder(pool)

    def denoise(
        self, windows: Iterator[CroppedWindow], noise: Tensor, settings: SamplerSettings
    ) -> Iterator[StepOutput]:
        tasks = (partial(_denoise, window, noise, settings) for window in windows)
        return self._in_order(tasks, WINDOWS_AHEAD)

    def decode_batches(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        return self._in_order((partial(_decode, batch) for batch in batches), IMAGES_AHEAD)

    def decode(self, latents: Tensor) -> Tensor:
        (images,) = self.decode_batches(iter([latents]))
        return images


def new_worker(load: Callable[[], LipSyncPipeline]) -> Make:
    """The function of a worker. It runs tasks with the networks of `load`."""
    pipeline, batch_limit = load(), BatchLimit(CFG_BATCH, "the UNet")
    return lambda task: task(pipeline, batch_limit)


def _denoise(
    window: CroppedWindow,
    noise: Tensor,
    settings: SamplerSettings,
    pipeline: LipSyncPipeline,
    batch_limit: BatchLimit,
) -> StepOutput:
    """The last step of a window."""
    assert pipeline.unet is not None
    assert pipeline.vae is not None
    batches = iter([encode_window(window, pipeline.vae, pipeline.dtype)])
    device, dtype = pipeline.device, pipeline.dtype
    *_, last = denoise_windows(
        pipeline.unet, batches, noise, settings, device=device, dtype=dtype, batch_limit=batch_limit
    )
    return last._replace(latents=last.latents.cpu().clone())  # a view would send its whole storage


def _decode(latents: Tensor, pipeline: LipSyncPipeline, _: BatchLimit) -> Tensor:
    assert pipeline.vae is not None
    return pipeline.vae.decode(latents).cpu()
