"""How batches scale with the number of workers, where a simulated network does the work.

Each worker sleeps for the time that a video would take. What is left is the cost of the batch itself: reading records,
reserving outputs, and handing out jobs. Workers are threads by default, so that no process takes CPU time from the
driver; `--ray` uses Ray actors on this machine.

Usage: python -m benchmarks.scale [--workers 1,2,4,16,64] [--seconds 2] [--frames 250] [--ray]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from latentsync.batch import Finished, Job, Pool, Row, run_jobs, work

JOBS_PER_WORKER = 4


def sleep_for(seconds: float) -> str:
    """The simulated network."""
    time.sleep(seconds)
    return "slept"


def worker() -> Any:
    return sleep_for


def no_error(_: Exception) -> None:
    return None


class Sleepers:
    """A pool of threads."""

    def __init__(self, count: int) -> None:
        self._idle = set(range(count))
        self._ended: SimpleQueue[Finished] = SimpleQueue()

    def idle(self) -> Sequence[Hashable]:
        return sorted(self._idle)

    def start(self, worker: Hashable, task: Any) -> None:
        self._idle.discard(worker)
        Thread(target=lambda: self._ended.put(work(worker, task, sleep_for, no_error)), daemon=True).start()

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


def measure(pool: Pool, workers: int, seconds: float, folder: Path) -> float:
    """Seconds for `JOBS_PER_WORKER` jobs on each worker."""
    jobs = range(workers * JOBS_PER_WORKER)
    rows = [Row(Job(f"job {i}", seconds, folder / f"{i}.mp4", "model", i // 4, seconds)) for i in jobs]
    began = time.perf_counter()
    for _ in run_jobs(rows, pool, lambda _: False):
        pass
    assert all(row.state == "done" for row in rows)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", default="1,2,4,16,64", help="numbers of workers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a job (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=250, help="of a job, for frames a second (default: %(default)s)")
    parser.add_argument("--ray", action="store_true", help="use Ray actors")
    args = parser.parse_args()
    print("| workers | jobs | seconds | efficiency | frames a second | driver, ms a job |")
    print("|---|---|---|---|---|---|")
    for count in map(int, args.workers.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            seconds = on_ray(count, args.seconds, Path(folder)) if args.ray else on_threads(count, args, Path(folder))
        jobs, ideal = count * JOBS_PER_WORKER, JOBS_PER_WORKER * args.seconds
        overhead = 1000 * (seconds - ideal) / jobs
        row = [count, jobs, f"{seconds:.2f}", f"{ideal / seconds:.0%}", f"{jobs * args.frames / seconds:,.0f}"]
        print("|", " | ".join(map(str, [*row, f"{overhead:.1f}"])), "|", flush=True)


def on_threads(count: int, args: argparse.Namespace, folder: Path) -> float:
    return measure(Sleepers(count), count, args.seconds, folder)


def on_ray(count: int, seconds: float, folder: Path) -> float:
    """With as many actors as the simulated CPUs of a node of this machine. Their start is not measured."""
    import ray

    from latentsync.cluster.actors import Actors

    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False)
    try:
        pool = Actors(worker, no_error, 1, [folder])
        while len(pool.idle()) < count:
            list(pool.wait(1.0))
        return measure(pool, count, seconds, folder)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
