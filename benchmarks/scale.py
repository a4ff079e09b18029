"""How batches, and the windows of one video, scale with the number of workers. A simulated network does the work.

Each worker sleeps for the time that a video or a window would take. What is left is the cost of the main process.

- Jobs of a batch: reading records, reserving outputs, and handing out jobs.
- `--windows`: the windows of one video, as `run --cluster` sends them: uint8 crops of 16 frames at 512 pixels, and
  latents back.

Workers are threads, so that no process takes CPU time from the main process. `--ray` uses Ray actors on this machine.

Usage: python -m benchmarks.scale [--workers 1,2,4,16,64] [--seconds 2] [--frames 250] [--windows] [--ray]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import psutil

from latentsync.batch import Finished, Job, Pool, Row, run_jobs, work

TASKS_PER_WORKER = 4
WINDOW_FRAMES, CROP_SHAPE, LATENT_SHAPE = 16, (16, 3, 512, 512), (1, 4, 16, 64, 64)
ACTOR_BYTES = 90e6  # RAM of an actor without networks, measured


def sleep_for(seconds: float) -> str:
    """The simulated network."""
    time.sleep(seconds)
    return "slept"


def worker() -> Any:
    return sleep_for


def denoise_for(task: tuple[float, np.ndarray]) -> np.ndarray:
    """The simulated network for one window."""
    seconds, crops = task
    assert crops.shape == CROP_SHAPE
    time.sleep(seconds)
    return np.zeros(LATENT_SHAPE, np.float32)


def window_worker() -> Any:
    return denoise_for


def no_error(_: Exception) -> None:
    return None


class Sleepers:
    """A pool of threads. `make` does their tasks."""

    def __init__(self, count: int, make: Any) -> None:
        self._make = make
        self._idle = set(range(count))
        self._ended: SimpleQueue[Finished] = SimpleQueue()

    def idle(self) -> Sequence[Hashable]:
        return sorted(self._idle)

    def start(self, worker: Hashable, task: Any) -> None:
        self._idle.discard(worker)
        Thread(target=lambda: self._ended.put(work(worker, task, self._make, no_error)), daemon=True).start()

    def wait(self, seconds: float) -> Iterator[Finished]:
        try:
            ended = [self._ended.get(timeout=seconds)]
            while not self._ended.empty():
                ended.append(self._ended.get())
        except Empty:
            return
        for finished in ended:
            self._idle.add(finished.worker)
            yield finished

    def close(self) -> None:
        pass


def measure(pool: Pool, workers: int, args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process, for `TASKS_PER_WORKER` jobs or windows on each worker."""
    count = workers * TASKS_PER_WORKER
    tasks = windows(pool, workers, count, args.seconds) if args.windows else jobs(pool, count, args.seconds, folder)
    next(tasks)
    began, cpu = time.perf_counter(), time.process_time()
    assert sum(1 for _ in tasks) == count
    return time.perf_counter() - began, time.process_time() - cpu


def jobs(pool: Pool, count: int, seconds: float, folder: Path) -> Iterator[object]:
    """Runs jobs. Yields None before the first one, and then each that is done."""
    names = range(count)
    rows = [Row(Job(f"job {i}", seconds, folder / f"{i}.mp4", "model", i // 4, seconds)) for i in names]
    yield None
    for row in run_jobs(rows, pool, lambda _: False):
        if row.state == "done":
            yield row


def windows(pool: Pool, workers: int, count: int, seconds: float) -> Iterator[object]:
    """Runs windows. Yields None before the first one, and then the latents of each."""
    from latentsync.cluster.windows import WINDOWS_AHEAD, InOrder  # not for the actors: it imports torch

    crops, in_order = np.random.default_rng(0).integers(0, 256, CROP_SHAPE, np.uint8), InOrder(pool)
    list(in_order(((0.0, crops.copy()) for _ in range(workers)), WINDOWS_AHEAD))  # the first calls import numpy
    yield None
    yield from in_order(((seconds, crops.copy()) for _ in range(count)), WINDOWS_AHEAD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="1,2,4,16,64", help="numbers of workers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a job or a window (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=250, help="of a job, for frames a second (default: %(default)s)")
    parser.add_argument("--ray", action="store_true", help="use Ray actors")
    parser.add_argument("--windows", action="store_true", help="windows of one video, in place of jobs")
    args = parser.parse_args()
    frames = WINDOW_FRAMES if args.windows else args.frames
    print("| workers | tasks | seconds | efficiency | frames a second | main process, CPU ms a task |")
    print("|---|---|---|---|---|---|")
    for count in map(int, args.workers.split(",")):
        if args.ray and count * ACTOR_BYTES > psutil.virtual_memory().available:
            print(f"{count} actors need about {count * ACTOR_BYTES / 1e9:.0f} GB of RAM. This machine has less free.")
            return
        with tempfile.TemporaryDirectory() as folder:
            seconds, cpu_seconds = (on_ray if args.ray else on_threads)(count, args, Path(folder))
        tasks, ideal = count * TASKS_PER_WORKER, TASKS_PER_WORKER * args.seconds
        row = [count, tasks, f"{seconds:.2f}", f"{ideal / seconds:.0%}", f"{tasks * frames / seconds:,.0f}"]
        print("|", " | ".join(map(str, [*row, f"{1000 * cpu_seconds / tasks:.1f}"])), "|", flush=True)


def on_threads(count: int, args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process."""
    return measure(Sleepers(count, denoise_for if args.windows else sleep_for), count, args, folder)


def on_ray(count: int, args: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """With as many actors as the simulated CPUs of a node of this machine. Their start is not measured."""
    import ray

    from latentsync.cli.cluster import CALLS_EACH
    from latentsync.cluster.actors import Actors

    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False)
    try:
        pool = Actors(
            window_worker if args.windows else worker, no_error, 1, [folder], CALLS_EACH if args.windows else 1
        )
        with closing(pool):
            while len(set(pool.idle())) < count:
                list(pool.wait(1.0))
            return measure(pool, count, args, folder)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
