"""Out of memory: which errors count, how the batch shrinks, and what the user reads."""

from __future__ import annotations

import logging

import pytest
import torch

from latentsync.errors import OutOfMemoryError
from latentsync.oom import BatchLimit, is_out_of_memory, out_of_memory_error


class Device:
    """Records the batch sizes that a function is called with, and runs out of memory above `max_images` images."""

    def __init__(self, max_images: int, error: BaseException | None = None) -> None:
        self.max_images = max_images
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        self.batch_sizes: list[int] = []

    def __call__(self, batch_size: int) -> str:
        self.batch_sizes.append(batch_size)
        if batch_size > self.max_images:
            raise self.error
        return "result"


def test_oom_halves_the_batch_and_remembers() -> None:
    device, limit = Device(3), BatchLimit(8, "the VAE")
    assert [limit.run(device, 9), limit.run(device, 9)] == ["result", "result"]
    assert device.batch_sizes == [8, 4, 2, 2]
    assert limit.max_batch == 2


def test_oom_batch_is_never_larger_than_the_count() -> None:
    device = Device(1)
    assert BatchLimit(8, "the VAE").run(device, 2) == "result"
    assert device.batch_sizes == [2, 1]


def test_oom_logs_every_halving(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "latentsync.oom"):
        BatchLimit(8, "the UNet").run(Device(2), 8)
    assert caplog.messages == [
        "Out of memory in the UNet. LatentSync reduces the batch size from 8 to 4.",
        "Out of memory in the UNet. LatentSync reduces the batch size from 4 to 2.",
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        RuntimeError("Native API failed. Native API returns: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
        RuntimeError("Could not allocate tensor with 1 bytes. There is not enough GPU video memory available!"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_oom_of_every_backend_is_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(
        OutOfMemoryError, match=r"^Out of memory in the VAE, even at batch size 1( \(.*\))?\. Close other programs"
    ):
        BatchLimit(2, "the VAE").run(Device(0, error), 2)


def test_other_errors_are_not_retried() -> None:
    device = Device(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        BatchLimit(8, "the VAE").run(device, 9)
    assert device.batch_sizes == [8]


def test_oom_predicate_can_be_injected() -> None:
    """ComfyUI recognizes errors of its backends that the library does not know."""
    device = Device(1, RuntimeError("CUDA error: code 2"))
    limit = BatchLimit(4, "the UNet", is_oom=lambda error: "code 2" in str(error))
    assert limit.run(device, 4) == "result"
    assert device.batch_sizes == [4, 2, 1]


def test_oom_message_is_worded_once() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        BatchLimit(1, "the VAE").run(Device(0), 1)
    assert str(out_of_memory_error(caught.value)) == str(caught.value)
    assert "even at batch size 1 (CUDA out of memory). Close other programs" in str(caught.value)
    assert str(out_of_memory_error(MemoryError())) == (
        "Out of memory. Close other programs that use the GPU. "
        "If the memory is still not enough, choose version 1.5, or precision fp8 in Load Model."
    )
