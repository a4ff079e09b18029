"""A batch that does not fit in memory is halved."""

from __future__ import annotations

import pytest
import torch

from latentsync.errors import OutOfMemoryError
from latentsync.oom import BatchLimit, is_out_of_memory, out_of_memory_error


def test_oom_halves_the_batch_and_remembers() -> None:
    tried: list[int] = []

    def work(most: int) -> str:
        tried.append(most)
        if most > 3:
            raise torch.OutOfMemoryError("out of memory")
        return "made"

    room = BatchLimit(8, "pictures")
    assert [room.run(work, 9), room.run(work, 9)] == ["made", "made"]
    assert tried == [8, 4, 2, 2]
    assert room.max_batch == 2


def test_oom_at_batch_1_is_not_retried() -> None:
    tried: list[int] = []

    def work(most: int) -> str:
        tried.append(most)
        if most > 1:
            raise MemoryError
        return "made"

    assert BatchLimit(8, "pictures").run(work, 2) == "made"
    assert tried == [2, 1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Could not allocate tensor with 1 bytes. There is not enough GPU video memory available!"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_oom_of_every_backend_is_recognized(error: Exception) -> None:
    def work(_: int) -> None:
        raise error

    assert is_out_of_memory(error)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory with pictures one at a time: close what else uses it"):
        BatchLimit(2, "pictures").run(work, 2)


def test_other_errors_are_not_retried() -> None:
    tried: list[int] = []

    def work(most: int) -> None:
        tried.append(most)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        BatchLimit(8, "pictures").run(work, 9)
    assert tried == [8]


def test_oom_warning_is_given_once() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        BatchLimit(1, "pictures").run(out_of_memory, 1)
    assert str(out_of_memory_error(caught.value)) == str(caught.value)
    assert str(caught.value).endswith("precision fp8 (no more)")
    assert str(out_of_memory_error(MemoryError())).endswith("precision fp8")


def out_of_memory(_: int) -> None:
    raise MemoryError("no more")
