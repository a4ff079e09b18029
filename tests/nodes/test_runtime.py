"""What becomes of a run that finds no memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch


@pytest.fixture(scope="session")
def runtime(pack: ModuleType) -> ModuleType:
    return pack.runtime


class Held:
    """Stands for a tensor on the device."""


def test_all_is_free_again_when_memory_has_run_out(
    pack: ModuleType, runtime: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Held]] = []
    freed: list[bool] = []

    def work() -> Iterator[int]:
        tensor = Held()
        held.append(weakref.ref(tensor))
        yield 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMuch more is said.")

    monkeypatch.setattr(runtime.mm, "unload_all_models", lambda: freed.append(held[0]() is None))
    with pytest.raises(Exception, match="out of memory: choose") as caught:
        list(runtime.tracked(work(), 2))
    assert type(caught.value).__name__ == "RoomError"
    assert str(caught.value).endswith("(CUDA out of memory. Tried to allocate 2.00 GiB.)")
    assert freed == [True], "what the run held went before the models did"


def test_other_errors_pass_as_they_are(runtime: ModuleType) -> None:
    def work() -> Iterator[int]:
        raise ValueError("mat1 and mat2")
        yield 1

    with pytest.raises(ValueError, match="mat1 and mat2"):
        list(runtime.tracked(work(), 1))
