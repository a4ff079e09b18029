"""Run many jobs on a pool of workers: choose their order, skip finished jobs, and retry failed jobs.

A job is finished if the run record beside its output lists the job as done. A stopped batch therefore continues when
you start it again. No other file stores the state of the batch. Every job reserves its output path while it runs. Two
batches, or a batch and ComfyUI, therefore never write the same file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal, Protocol

from .errors import LatentSyncError, OutputInUseError, UsageError
from .output.output_path import reserve_path, videos_named

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
IN_USE_SECONDS = 2.0  # until the next check of an output that another run is writing
MAX_LOSSES = 3  # workers that one job may lose. The job may be the cause

Make = Callable[[Any], Any]
"""Runs a task and returns its result. The result of a job is the summary of its video."""

ErrorOf = Callable[[Exception], LatentSyncError | None]

State = Literal["waiting", "running", "done", "skipped", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """One video to make.

    name: name of the job in errors and in the table, such as "line 3".
    task: the input of the worker's function.
    output: path of the finished video.
    model, source: jobs with the same values share the loaded networks and the detected faces.
    seconds: length of the recording. The batch estimates the remaining time from this length.
    replaces: existing videos with the name of the output, of any format, at the time of the check. The batch may
        replace them.
    """

    name: str
    task: Any
    output: Path
    model: Hashable
    source: Hashable
    seconds: float
    replaces: frozenset[Path] = frozenset()


@dataclass(eq=False)
class Row:
    """A job in the table of a batch. `reason` is the error of its last attempt, or the summary of its video."""

    job: Job
    state: State = "waiting"
    reason: str = ""
    tries: int = 0
    losses: int = 0
    seconds: float = 0.0
    started: float = 0.0
    not_before: float = field(default=0.0, repr=False)


@dataclass(frozen=True)
class Finished:
    """The result of a task on a worker.

    result: return value of the worker's function, such as the summary of a video, or the text of the error.
    lost: whether the worker ended unexpectedly. Another worker can run the job.
    is_internal: whether the error is a bug or a failure of the device.
    """

    worker: Hashable
    result: Any
    is_done: bool
    lost: bool = False
    is_internal: bool = False


class Pool(Protocol):
    """Workers that each run one job at a time."""

    def idle(self) -> Sequence[Hashable]:
        """The workers that are ready for a job."""
        ...

    def start(self, worker: Hashable, task: Any) -> None:  # noqa: ANN401 - of a Job
        """Give a job to an idle worker."""
        ...

    def wait(self, seconds: float) -> Iterable[Finished]:
        """Wait until a job ends, at most `seconds` seconds. Return a result of each worker that ended a job."""
        ...

    def close(self) -> None:
        """End all workers and their jobs, and delete their unfinished files."""
        ...


def run_jobs(
    rows: Sequence[Row], pool: Pool, is_finished: Callable[[Job], bool], retries: int = 1
) -> Generator[Row, None, None]:
    """Run all jobs. A failed job never ends the batch.

    Args:
        rows: one row for each job. The batch updates the rows while it runs.
        pool: the workers. The function closes the pool at the end, also after an error.
        is_finished: whether the output of a job exists already.
        retries: how often a failed job runs again, after all other jobs.

    Yields:
        A row when its job starts, ends, or waits for another run that is writing the same output.
    """
    last: dict[Hashable, Job] = {}
    running: dict[Hashable, tuple[Row, ExitStack]] = {}

    def start_next(worker: Hashable) -> Iterator[Row]:
        """Start the next job on a worker. Yields its row, and rows that are finished already or have to wait."""
        while worker not in running and (row := _next_row(rows, last, worker)) is not None:
            before = row.reason
            if reserved := _begin(row, is_finished):
                last[worker], running[worker] = row.job, (row, reserved)
                pool.start(worker, row.job.task)
            if row.state != "waiting" or row.reason != before:
                yield row
            if row.state == "waiting":  # all remaining rows wait, too
                return

    try:
        while any(row.state in ("waiting", "running") for row in rows):
            for worker in pool.idle():
                yield from start_next(worker)
            for finished in pool.wait(POLL_SECONDS):
                row, reserved = running[finished.worker]
                reserved.close()
                _end(row, finished, retries)
                del running[finished.worker]
                yield row
    except BaseException:
        for row in rows:
            if row.state == "running":
                row.state, row.reason = "cancelled", "The batch was stopped."
        raise
    finally:
        pool.close()
        for _, reserved in running.values():
            reserved.close()


def _next_row(rows: Sequence[Row], last: Mapping[Hashable, Job], worker: Hashable) -> Row | None:
    """The next waiting row. Rows with the model and the source of the worker's last job come first. Rows with a source
    that no other worker uses come next. Rows with an output in use come last.
    """
    model, source = (last[worker].model, last[worker].source) if worker in last else (None, None)
    others = {job.source for key, job in last.items() if key != worker}
    ready = [row for row in rows if row.state == "waiting" and row.not_before <= monotonic()]
    return min(
        ready,
        key=lambda row: (
            row.not_before,
            row.tries,
            row.job.model != model,
            row.job.source != source,
            row.job.source in others,
        ),
        default=None,
    )


def _begin(row: Row, is_finished: Callable[[Job], bool]) -> ExitStack | None:
    """Reserve the output of a job. None if the job is finished, has failed or has to wait."""
    try:
        with ExitStack() as reserved:
            reserved.enter_context(reserve_path([row.job.output]))
            if is_finished(row.job):  # another batch may have just finished it
                row.state, row.reason = "skipped", ""
                return None
            others = videos_named(row.job.output) - row.job.replaces
            if others and not row.tries and not row.losses:  # a lost worker can leave a video of this batch
                raise UsageError(
                    f"Another run made {min(others)} after the batch checked its jobs, so LatentSync does not replace "
                    "this video. Choose another output, or start the batch again to replace it."
                )
            row.state, row.reason, row.started = "running", "", monotonic()
            return reserved.pop_all()
    except OutputInUseError as error:
        row.reason, row.not_before = str(error), monotonic() + IN_USE_SECONDS
    except LatentSyncError as error:
        row.state, row.reason = "failed", str(error)
    return None


def _end(row: Row, finished: Finished, retries: int) -> None:
    row.seconds += monotonic() - row.started
    row.reason = finished.result
    row.tries += not finished.lost
    row.losses += finished.lost
    again = row.losses <= MAX_LOSSES if finished.lost else row.tries <= retries
    row.state = "done" if finished.is_done else "waiting" if again else "failed"
    log.info("%s: %s %s", row.job.name, row.state, row.reason)


class LocalWorker:
    """A pool whose only worker is this process.

    Args:
        error_of: returns the error that the user sees for an exception. None: the exception is an internal error.
    """

    def __init__(self, make: Make, error_of: ErrorOf) -> None:
        self._make = make
        self._error_of = error_of
        self._tasks: list[Any] = []

    def idle(self) -> Sequence[Hashable]:
        return [] if self._tasks else [0]

    def start(self, worker: Hashable, task: Any) -> None:  # noqa: ANN401, ARG002
        self._tasks.append(task)

    def wait(self, seconds: float) -> Iterator[Finished]:
        if not self._tasks:
            sleep(seconds)  # every remaining job waits for another run
            return
        yield work(0, self._tasks.pop(), self._make, self._error_of)

    def close(self) -> None:
        self._tasks.clear()


def work(worker: Hashable, task: Any, make: Make, error_of: ErrorOf) -> Finished:  # noqa: ANN401 - of a Job
    """Run a task. If the task raises an exception, the result is the text of the error."""
    try:
        return Finished(worker, make(task), is_done=True)
    except Exception as error:  # the batch continues
        log.info("A job failed", exc_info=True)
        known = error_of(error)
        text = str(known) if known else f"Internal error: {type(error).__name__}: {error}. Please report this."
        return Finished(worker, text, is_done=False, is_internal=known is None)


def seconds_left(rows: Sequence[Row], elapsed_seconds: float) -> float | None:
    """Estimate the seconds that the unfinished jobs still need, from the lengths of their recordings.

    Args:
        elapsed_seconds: seconds since the batch began.

    Returns:
        None until the first job is done.
    """
    done = sum(row.job.seconds for row in rows if row.state == "done")
    left = sum(row.job.seconds for row in rows if row.state in ("waiting", "running"))
    return elapsed_seconds * left / done if done else None
