"""Latents in memory or in a temporary file: the same values, and no file is left."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from latentsync import tensor_buffer as stores
from latentsync.errors import StorageError
from latentsync.tensor_buffer import TensorBuffer


def windows(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 4, 8, 8, generator=generator) for n in (16, 16, 3)]


@pytest.fixture(params=["memory", "file"])
def kept_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        monkeypatch.setattr(stores, "MEMORY_BYTES", 0)
    return request.param


def test_tensor_buffer_returns_what_was_appended(kept_in: str, tmp_path: Path) -> None:
    given = windows()
    with TensorBuffer("rows", 40, tmp_path) as store:
        slots = [store.append(piece) for piece in given]
        finished = store.tensor()
    assert slots == [range(16), range(16, 32), range(32, 35)]
    assert finished.dtype == torch.float16
    assert torch.equal(finished, torch.cat(given).half())
    assert torch.equal(finished[[34, 0]], torch.cat(given).half()[[34, 0]])


def test_tensor_buffer_two_clips_are_separate(kept_in: str, tmp_path: Path) -> None:
    with TensorBuffer("rows", 40, tmp_path) as one, TensorBuffer("rows", 40, tmp_path) as two:
        for a, b in zip(windows(1), windows(2), strict=True):
            one.append(a)
            two.append(b)
        first, second = one.tensor(), two.tensor()
    assert torch.equal(first, torch.cat(windows(1)).half())
    assert torch.equal(second, torch.cat(windows(2)).half())


def mapped_in(folder: Path) -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(folder))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks for the mapping in /proc")
def test_tensor_buffer_file_is_deleted_with_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MEMORY_BYTES", 0)
    with TensorBuffer("rows", 40, tmp_path) as store:
        store.append(windows()[0])
        finished = store.tensor()
    gc.collect()
    assert mapped_in(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [], "it has no name, so that nothing stays even if the process is killed"
    view = finished[3:5]
    del finished
    assert mapped_in(tmp_path) == 1, "a part of it is still looked at"
    del view
    assert mapped_in(tmp_path) == 0


def gather_and_fail(folder: Path) -> None:
    with TensorBuffer("rows", 40, folder) as store:
        store.append(windows()[0])
        raise KeyboardInterrupt


def test_tensor_buffer_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MEMORY_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        gather_and_fail(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensor_buffer_small_data_needs_no_folder(tmp_path: Path) -> None:
    with TensorBuffer("rows", 40, tmp_path / "nowhere") as store:
        store.append(windows()[0])
        assert len(store.tensor()) == 16


def test_tensor_buffer_names_folder_it_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MEMORY_BYTES", 0)
    with pytest.raises(StorageError, match="nowhere: cannot hold the latents of 90000 frames"):
        TensorBuffer("the latents of 90000 frames", 90_000, tmp_path / "nowhere").append(windows()[0])


def test_tensor_buffer_without_windows_is_empty() -> None:
    with TensorBuffer("rows", 40) as store:
        assert len(store.tensor()) == 0
