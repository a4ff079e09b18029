"""The progress bar, cancel, and out-of-memory errors of a node."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import count
from typing import Any, TypeVar, cast

import comfy.model_management as mm
import comfy.utils

from ..latentsync.errors import OutOfMemoryError
from ..latentsync.oom import is_out_of_memory, out_of_memory_error
from ..latentsync.progress import Task

T = TypeVar("T")

END: Any = object()


def with_progress(items: Iterator[T], stage: str, total: int) -> Iterator[T]:  # noqa: ARG001 - one stage a node
    """Pass items on, move the node's progress bar, and stop when the user cancels: a `progress.ShowProgress`.

    `items` is a generator. It is closed at the end, so that a cancelled run keeps no file open.

    Raises:
        OutOfMemoryError: see `with_oom_message`.
    """
    bar = comfy.utils.ProgressBar(total)
    with closing(cast("Generator[T, None, None]", items)):
        for done in count(1):
            item = with_oom_message(lambda: next(items, END))
            if item is END:
                return
            mm.throw_exception_if_processing_interrupted()
            bar.update_absolute(done, total)
            yield item


def is_oom(error: BaseException) -> bool:
    """Whether ComfyUI or the library knows an error as out of memory. CUDA must forget it before the next attempt."""
    return mm.is_oom(error) or is_out_of_memory(error)


def with_oom_message(work: Callable[[], T]) -> T:
    """The result of `work`.

    Raises:
        OutOfMemoryError: memory ran out. All models were unloaded first, so the next prompt starts clean.
    """
    try:
        return work()
    except (OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not is_oom(error):
            raise
        reason = out_of_memory_error(error)
    # outside `except`: the traceback keeps the failed attempt's tensors alive
    mm.unload_all_models()
    mm.soft_empty_cache()
    raise reason


def run_with_progress(task: Task[T]) -> T:
    """Run a task on files, move the node's progress bar, and stop when the user cancels."""
    with closing(task):
        try:
            while True:
                step = next(task)
                mm.throw_exception_if_processing_interrupted()
                comfy.utils.ProgressBar(step.total).update_absolute(step.done, step.total)
        except StopIteration as end:
            return end.value
