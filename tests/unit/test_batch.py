"""The order of the jobs of a batch, their retries, and outputs that other runs use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from latentsync import batch
from latentsync.batch import Finished, Job, LocalWorker, Row, run_jobs, seconds_left
from latentsync.errors import FaceError, MediaError
from latentsync.output.output_path import reserve_path
from tests.support.interrupts import interrupt_everywhere

Ends = Callable[[str, int], bool]


class PretendPool:
    """Workers that end each job at the next wait, in the order in which the jobs began.

    ends_well: of the name of a job and its try, from 1.
    lost: names of jobs whose worker dies at the first try.
    """

    def __init__(self, workers: int = 1, ends_well: Ends = lambda *_: True, lost: Sequence[str] = ()) -> None:
        self.workers, self.ends_well, self.lost = workers, ends_well, list(lost)
        self.busy: dict[Hashable, str] = {}
        self.began: list[tuple[Hashable, str]] = []
        self.closed = False

    def idle(self) -> Sequence[Hashable]:
        return [i for i in range(self.workers) if i not in self.busy]

    def start(self, worker: Hashable, task: Any) -> None:
        self.busy[worker] = task
        self.began.append((worker, task))

    def wait(self, seconds: float) -> Iterable[Finished]:
        ended, self.busy = self.busy, {}
        for worker, task in ended.items():
            if task in self.lost:
                self.lost.remove(task)
                yield Finished(worker, "the worker died", is_done=False, lost=True)
            else:
                tries = [name for _, name in self.began].count(task)
                yield Finished(worker, "made", self.ends_well(task, tries))

    def close(self) -> None:
        self.closed = True


def rows(folder: Path, *jobs: str) -> list[Row]:
    """Jobs by their names. The first letter is the source."""
    return [Row(Job(name, name, folder / f"{name}.mp4", "model", name[0], 2.0)) for name in jobs]


def finish(rows: list[Row], pool: PretendPool, retries: int = 1, done: Sequence[str] = ()) -> None:
    for _ in run_jobs(rows, pool, lambda job: job.name in done, retries):
        pass


def test_batch_does_jobs_of_one_source_in_a_row(tmp_path: Path) -> None:
    pool = PretendPool()
    finish(rows(tmp_path, "a1", "b1", "a2", "b2", "a3"), pool)
    assert [name for _, name in pool.began] == ["a1", "a2", "a3", "b1", "b2"]


def test_batch_workers_share_a_source_only_at_the_end(tmp_path: Path) -> None:
    pool = PretendPool(workers=2)
    finish(rows(tmp_path, "a1", "a2", "a3", "a4", "b1", "b2"), pool)
    assert [name for worker, name in pool.began if worker == 0] == ["a1", "a2", "a3"]
    assert [name for worker, name in pool.began if worker == 1] == ["b1", "b2", "a4"]


def test_batch_retries_failed_jobs_last(tmp_path: Path) -> None:
    table, pool = (
        rows(tmp_path, "a1", "a2", "a3"),
        PretendPool(ends_well=lambda name, tries: name != "a1" or tries == 2),
    )
    finish(table, pool)
    assert [name for _, name in pool.began] == ["a1", "a2", "a3", "a1"]
    assert [(row.state, row.tries) for row in table] == [("done", 2), ("done", 1), ("done", 1)]


def test_batch_gives_up_after_the_retries(tmp_path: Path) -> None:
    table, pool = rows(tmp_path, "a1", "a2"), PretendPool(ends_well=lambda name, _: name == "a2")
    finish(table, pool, retries=2)
    assert [(row.state, row.tries) for row in table] == [("failed", 3), ("done", 1)]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_batch_keeps_videos_that_other_runs_make(tmp_path: Path, suffix: str) -> None:
    """A video that was there when the jobs were checked is replaced. Both have the record a1.json."""
    other = tmp_path / f"a1{suffix}"
    other.write_bytes(b"video")
    (row,), pool = rows(tmp_path, "a1"), PretendPool()
    finish([row], pool)
    assert (row.state, pool.began) == ("failed", [])
    assert row.reason.startswith(f"Another run made {other} after the batch checked its jobs")
    checked = Row(replace(row.job, replaces=frozenset([other])))
    finish([checked], pool)
    assert checked.state == "done"
    assert other.read_bytes() == b"video"


def test_batch_lost_worker_is_no_failure_of_the_job(tmp_path: Path) -> None:
    table = rows(tmp_path, "a1")
    finish(table, PretendPool(lost=["a1"] * batch.MAX_LOSSES), retries=0)
    assert (table[0].state, table[0].tries) == ("done", 1)
    table = rows(tmp_path, "a1")
    finish(table, PretendPool(lost=["a1"] * (batch.MAX_LOSSES + 1)), retries=0)
    assert (table[0].state, table[0].reason) == ("failed", "the worker died")


def test_batch_skips_what_another_batch_made(tmp_path: Path) -> None:
    table, pool = rows(tmp_path, "a1", "a2"), PretendPool()
    finish(table, pool, done=["a1"])
    assert [row.state for row in table] == ["skipped", "done"]
    assert [name for _, name in pool.began] == ["a2"]


def test_batch_reserves_outputs_while_jobs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run has the first output until the second job is done."""
    monkeypatch.setattr(batch, "IN_USE_SECONDS", 0.0)
    table, pool, seen = rows(tmp_path, "a1", "a2"), PretendPool(), list[str]()
    other = reserve_path([tmp_path / "a1.mp4"])
    other.__enter__()
    for row in run_jobs(table, pool, lambda _: False):
        seen.append(f"{row.job.name} {row.state}")
        assert row.state != "running" or row.job.output.exists(), "reserved"
        if seen[-1] == "a2 done":
            other.__exit__(None, None, None)
    assert seen == ["a1 waiting", "a2 running", "a2 done", "a1 running", "a1 done"]
    assert list(tmp_path.iterdir()) == []


def test_batch_that_is_stopped_closes_its_pool_and_names(tmp_path: Path) -> None:
    table, pool = rows(tmp_path, "a1", "a2"), PretendPool()
    running = run_jobs(table, pool, lambda _: False)
    next(running)
    running.close()
    assert pool.closed
    assert [row.state for row in table] == ["cancelled", "waiting"]
    assert list(tmp_path.iterdir()) == []


def test_batch_after_ctrl_c_has_no_running_job_or_reserved_name(tmp_path: Path) -> None:
    table: list[Row] = []

    def stopped() -> None:
        table[:] = rows(tmp_path, "a1", "a2", "a3")
        finish(table, PretendPool(workers=2))

    places = set[str]()
    for place in interrupt_everywhere(stopped, batch):
        places.add(place)
        assert {row.state for row in table} <= {"waiting", "cancelled", "done"}, place
        assert list(tmp_path.iterdir()) == [], place
    assert len(places) > 40


def test_batch_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    table = rows(tmp_path / "none", "a1") + rows(tmp_path, "a2")
    finish(table, PretendPool())
    assert [row.state for row in table] == ["failed", "done"]
    assert "cannot be written" in table[0].reason


def test_batch_job_with_an_unreadable_file_does_not_end_it(tmp_path: Path) -> None:
    table = rows(tmp_path, "a1", "a2", "a3")

    def is_finished(job: Job) -> bool:
        if job.name == "a2":
            raise MediaError("a2.wav cannot be read.")
        return False

    for _ in run_jobs(table, PretendPool(), is_finished, retries=1):
        pass
    assert [row.state for row in table] == ["done", "failed", "done"]
    assert table[1].reason == "a2.wav cannot be read."
    with reserve_path([table[1].job.output]):
        pass  # the failed job holds its name no longer


def test_local_worker_turns_exceptions_into_sentences(tmp_path: Path) -> None:
    def make(task: str) -> str:
        raise {"a1": FaceError("No face."), "a2": ZeroDivisionError("division by zero")}[task]

    table = rows(tmp_path, "a1", "a2")
    worker = LocalWorker(make, lambda error: error if isinstance(error, FaceError) else None)
    for _ in run_jobs(table, worker, lambda _: False, retries=0):
        pass
    assert [row.reason for row in table] == [
        "No face.",
        "Internal error: ZeroDivisionError: division by zero. Please report this.",
    ]


def test_seconds_left_counts_what_is_not_done(tmp_path: Path) -> None:
    table = rows(tmp_path, "a1", "a2", "a3", "a4")
    assert seconds_left(table, 10.0) is None
    table[0].state, table[1].state = "done", "skipped"
    assert seconds_left(table, 10.0) == 20.0
