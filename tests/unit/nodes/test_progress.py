"""Progress of a node: a cancel closes what the node reads."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from latentsync.prefetch import prefetch
from latentsync.progress import Progress, Task


class Reader:
    """Stands for a file that is read piece by piece."""

    closed = False

    def numbers(self) -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            self.closed = True

    def task(self) -> Task[None]:
        for number in self.numbers():
            yield Progress("reading", number, 100)


@pytest.fixture
def cancelled(pack: ModuleType) -> Iterator[type[BaseException]]:
    """The user has pressed cancel."""
    import comfy.model_management as mm

    mm.interrupt_current_processing()
    yield mm.InterruptProcessingException
    mm.interrupt_current_processing(False)


def test_cancel_closes_the_files_of_a_stage(pack: ModuleType, cancelled: type[BaseException]) -> None:
    reader = Reader()
    items = prefetch(reader.numbers())  # the test keeps a reference, so that only `close` can end it
    with pytest.raises(cancelled):
        list(pack.progress.with_progress(items, "faces", 100))
    assert reader.closed


def test_cancel_closes_the_files_of_a_task(pack: ModuleType, cancelled: type[BaseException]) -> None:
    reader = Reader()
    task = reader.task()
    with pytest.raises(cancelled):
        pack.progress.run_with_progress(task)
    assert next(task, None) is None
    assert reader.closed
