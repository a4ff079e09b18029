"""The progress bar, cancel, and out-of-memory errors of a node."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar, cast

import comfy.model_management as mm
import comfy.utils

from ..latentsync.errors import OutOfMemoryError
from ..latentsync.oom import is_out_of_memory, out_of_memory_error
from ..latentsync.progress import Task

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

PreviewImage = tuple[str, "Image", int]
"""An image as ComfyUI's progress bar takes it: format, picture, largest side in pixels."""

END: Any = object()


def with_progress(
    items: Iterator[T],
    stage: str,  # noqa: ARG001 - one stage a node
    total: int,
    preview: Callable[[T, int, int], PreviewImage | None] | None = None,
) -> Iterator[T]:
    """Yield the items, move the node's progress bar, and stop when the user cancels. See `progress.ShowProgress`.

    `items` is a generator. The function closes `items` at the end, so that a canceled run keeps no file open.
    `preview` makes an image for the node from an item, the number of items so far and `total`.

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
            bar.update_absolute(done, total, None if preview is None else preview(item, done, total))
            yield item


def show_text(text: str) -> None:
    """Show text in the running node. Outside a run, or without a page, this function does nothing."""
    from comfy_execution.progress import get_progress_state
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    page: Any = None if context is None else get_progress_state().handlers.get("webui")
    if context is not None and page is not None:
        page.server_instance.send_progress_text(text, context.node_id, page.server_instance.client_id)


def is_oom(error: BaseException) -> bool:
    """Whether ComfyUI or the library recognizes an out-of-memory error. ComfyUI also clears the error in CUDA."""
    return mm.is_oom(error) or is_out_of_memory(error)


def with_oom_message(work: Callable[[], T]) -> T:
    """Call `work` and return its result. An out-of-memory error becomes an error with a message for the user.

    Raises:
        OutOfMemoryError: the device is out of memory. The function first unloads all models, so the next prompt starts
            with free memory.
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
