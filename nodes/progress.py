"""The progress bar, cancel, and out-of-memory errors of a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management as mm
import comfy.sd
import comfy.utils

from ..latentsync.errors import OutOfMemoryError
from ..latentsync.oom import is_out_of_memory, out_of_memory_error

if TYPE_CHECKING:
    from ..latentsync.progress import Task


T = TypeVar("T")


END: Any = object()  # of what is iterated over


def with_progress(items: Iterable[T], total: int) -> Iterator[T]:
    """Pass `items` on, moving the node's progress bar and looking for a cancel at each.

    Raises:
        OutOfMemoryError: memory ran out, see `with_oom_message`.
    """
    bar, made = comfy.utils.ProgressBar(total), iter(items)
    for done in count(1):
        item = with_oom_message(lambda: next(made, END))
        if item is END:
            return
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)
        yield item


def with_oom_message(work: Callable[[], T]) -> T:
    """What `work` gives.

    Raises:
        OutOfMemoryError: memory ran out; what ComfyUI had loaded was put away first, so that the next prompt begins afresh.
    """
    try:
        return work()
    except (OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = out_of_memory_error(error)
    # only here does the error no longer hold what the failed attempt had on the device
    mm.unload_all_models()
    mm.soft_empty_cache()
    raise reason


def run_with_progress(work: Task[T]) -> T:
    """Do the work on files, moving the node's progress bar and looking for a cancel at each step."""
    try:
        while True:
            step = next(work)
            mm.throw_exception_if_processing_interrupted()
            comfy.utils.ProgressBar(step.total).update_absolute(step.done, step.total)
    except StopIteration as end:
        return end.value
    finally:
        work.close()
