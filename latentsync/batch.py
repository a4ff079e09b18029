"""Run many jobs on a pool of workers: in which order, which are finished already, and what happens to those that fail.

A job is finished if the record beside its output says so. A batch that was stopped therefore continues when it is
started again, and no other file keeps track. Every job reserves its output while it runs, so that two batches, or a
batch and ComfyUI, never make the same file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal, Protocol

from .errors import LatentSyncError, OutputInUseError
from .output.output_path import reserve_path

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
IN_USE_SECONDS = 2.0  # until the output of another run is looked at again
MAX_LOSSES = 3  # of workers under one job: such a job may be the reason

Make = Callable[[Any], str]
"""Does a task and returns its summary."""

ErrorOf = Callable[[Exception], LatentSyncError | None]

State = Literal["waiting", "running", "done", "skipped", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """One video to make.

    name: how errors and the table call it, such as "line 3".
    task: what a worker receives.
    output: the finished video.
    model, source: jobs with the same values share the loaded networks, and the faces of the video.
    seconds: length of the recording, for the time left.
    """

    name: str
    task: Any
    output: Path
    model: Hashable
    source: Hashable
    seconds: float


@dataclass(eq=False)
class Row:
    """A job in the table of a batch. `reason` is the error of its last try, or the summary of its video."""

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
    """The end of a job on a worker.

    text: the summary of the video, or the error.
    lost: the worker died, and another can do the job.
    is_internal: the error is a mistake in our code or a failure of the device.
    """

    worker: Hashable
    text: str
    is_done: bool
    lost: bool = False
    is_internal: bool = False


class Pool(Protocol):
    """Workers that do one job each at a time."""

    def idle(self) -> Sequence[Hashable]:
        """The workers that are ready for a job."""
        ...

    def start(self, worker: Hashable, task: Any) -> None:  # noqa: ANN401 - of a Job
        """Give a job to an idle worker."""
        ...

    def wait(self, seconds: float) -> Iterable[Finished]:
        """The jobs that ended, after at most that many seconds without any."""
        ...

    def close(self) -> None:
        """End all workers and their jobs, and delete what these leave half-made."""
        ...


def run_jobs(
    rows: Sequence[Row], pool: Pool, is_finished: Callable[[Job], bool], retries: int = 1
) -> Generator[Row, None, None]:
    """Run all jobs. A failed job never ends the batch.

    Args:
        rows: one for each job. They change while the batch runs.
        pool: is closed at the end, however it ends.
        is_finished: whether the output of a job is there already.
        retries: how often a failed job is tried again, after all others.

    Yields:
        A row when it begins and when it ends, and a row that waits for the output of another run.
    """
    last: dict[Hashable, Job] = {}
    running: dict[Hashable, tuple[Row, ExitStack]] = {}

    def next_row(worker: Hashable) -> Row | None:
        """Jobs of the model and source of the worker's last job come first, then those that no other worker has.

        Rows whose output is in use come last.
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

    try:
        while any(row.state in ("waiting", "running") for row in rows):
            for worker in pool.idle():
                while worker not in running and (row := next_row(worker)) is not None:
                    before = row.reason
                    if reserved := _begin(row, is_finished):
                        last[worker], running[worker] = row.job, (row, reserved)
                        pool.start(worker, row.job.task)
                    if row.state != "waiting" or row.reason != before:
                        yield row
                    if row.state == "waiting":  # so do all others that are left
                        break
            for finished in pool.wait(POLL_SECONDS):
                row, reserved = running.pop(finished.worker)
                reserved.close()
                _end(row, finished, retries)
                yield row
    except BaseException:
        for row, _ in running.values():
            row.state, row.reason = "cancelled", "The batch was stopped."
        raise
    finally:
        pool.close()
        for _, reserved in running.values():
            reserved.close()


def _begin(row: Row, is_finished: Callable[[Job], bool]) -> ExitStack | None:
    """Reserve the output of a job. None if there is nothing to do now."""
    reserved = ExitStack()
    try:
        reserved.enter_context(reserve_path([row.job.output]))
    except OutputInUseError as error:
        row.reason, row.not_before = str(error), monotonic() + IN_USE_SECONDS
        return None
    except LatentSyncError as error:
        row.state, row.reason = "failed", str(error)
        return None
    if is_finished(row.job):  # perhaps another batch has just made it
        reserved.close()
        row.state, row.reason = "skipped", ""
        return None
    row.state, row.reason, row.started = "running", "", monotonic()
    return reserved


def _end(row: Row, finished: Finished, retries: int) -> None:
    row.seconds += monotonic() - row.started
    row.reason = finished.text
    row.tries += not finished.lost
    row.losses += finished.lost
    again = row.losses <= MAX_LOSSES if finished.lost else row.tries <= retries
    row.state = "done" if finished.is_done else "waiting" if again else "failed"
    log.info("%s: %s %s", row.job.name, row.state, row.reason)


class LocalWorker:
    """A pool of one worker: this process.

    Args:
        error_of: the error for the user that stands for an exception, if there is one.
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
            sleep(seconds)  # every job that is left waits for another run
            return
        yield work(0, self._tasks.pop(), self._make, self._error_of)

    def close(self) -> None:
        self._tasks.clear()


def work(worker: Hashable, task: Any, make: Make, error_of: ErrorOf) -> Finished:  # noqa: ANN401 - of a Job
    """Do a task. Whatever it raises is the text of its end."""
    try:
        return Finished(worker, make(task), is_done=True)
    except Exception as error:  # the batch goes on
        log.info("A job failed", exc_info=True)
        known = error_of(error)
        text = str(known) if known else f"Internal error: {type(error).__name__}: {error}. Please report this."
        return Finished(worker, text, is_done=False, is_internal=known is None)


def seconds_left(rows: Sequence[Row], elapsed_seconds: float) -> float | None:
    """The time that the waiting and the running jobs will need, by the length of their recordings.

    Args:
        elapsed_seconds: since the batch began.
    """
    done = sum(row.job.seconds for row in rows if row.state == "done")
    left = sum(row.job.seconds for row in rows if row.state in ("waiting", "running"))
    return elapsed_seconds * left / done if done else None
