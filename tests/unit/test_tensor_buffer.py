"""TensorBuffer: the same rows from memory and from a file, and no file left behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from latentsync import tensor_buffer
from latentsync.errors import StorageError
from latentsync.tensor_buffer import TensorBuffer


def window_latents(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 4, 8, 8, generator=generator) for n in (16, 16, 3)]


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        monkeypatch.setattr(tensor_buffer, "MEMORY_BYTES", 0)
    return request.param


def test_tensor_buffer_returns_what_was_appended(storage: str, tmp_path: Path) -> None:
    windows = window_latents()
    with TensorBuffer("rows", 40, tmp_path) as buffer:
        indices = [buffer.append(latents) for latents in windows]
        tensor = buffer.tensor()
    assert indices == [range(16), range(16, 32), range(32, 35)]
    assert tensor.dtype == torch.float16
    assert torch.equal(tensor, torch.cat(windows).half())
    assert torch.equal(tensor[[34, 0]], torch.cat(windows).half()[[34, 0]])


def test_tensor_buffer_goes_on_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails in the middle leaves a part of its rows. The next rows take their place."""
    monkeypatch.setattr(tensor_buffer, "MEMORY_BYTES", 0)
    windows = window_latents()
    with TensorBuffer("rows", 40, tmp_path) as buffer:
        buffer.append(windows[0])
        file = buffer._file
        assert file is not None

        class Full:
            """Writes ten bytes, and then has no space."""

            def write(self, content: bytes) -> int:
                file.write(content[:10])
                raise OSError(28, "No space left on device")

            def __getattr__(self, name: str) -> object:
                return getattr(file, name)

        monkeypatch.setattr(buffer, "_file", Full())
        with pytest.raises(StorageError, match="No space left on device"):
            buffer.append(windows[1])
        monkeypatch.setattr(buffer, "_file", file)
        assert buffer.append(windows[2]) == range(16, 19)
        assert torch.equal(buffer.tensor(), torch.cat([windows[0], windows[2]]).half())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensor_buffer_keeps_the_dtype_that_is_asked_for(storage: str, tmp_path: Path, dtype: torch.dtype) -> None:
    windows = window_latents()
    buffer = TensorBuffer("rows", 40, tmp_path, dtype)
    for latents in windows:
        buffer.append(latents)
    assert torch.equal(buffer.tensor(), torch.cat(windows).to(dtype))
    assert buffer.tensor().dtype == dtype


def test_tensor_buffer_two_clips_are_separate(storage: str, tmp_path: Path) -> None:
    with TensorBuffer("rows", 40, tmp_path) as first, TensorBuffer("rows", 40, tmp_path) as second:
        for a, b in zip(window_latents(1), window_latents(2), strict=True):
            first.append(a)
            second.append(b)
        first_tensor, second_tensor = first.tensor(), second.tensor()
    assert torch.equal(first_tensor, torch.cat(window_latents(1)).half())
    assert torch.equal(second_tensor, torch.cat(window_latents(2)).half())


def num_mapped(folder: Path) -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(folder))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks for the mapping in /proc")
def test_tensor_buffer_file_is_deleted_with_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_buffer, "MEMORY_BYTES", 0)
    with TensorBuffer("rows", 40, tmp_path) as buffer:
        buffer.append(window_latents()[0])
        tensor = buffer.tensor()
    gc.collect()
    assert num_mapped(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [], "the file has no name, so nothing stays even if the process is killed"
    view = tensor[3:5]
    del tensor
    assert num_mapped(tmp_path) == 1, "a view still uses it"
    del view
    assert num_mapped(tmp_path) == 0


def append_and_fail(folder: Path) -> None:
    with TensorBuffer("rows", 40, folder) as buffer:
        buffer.append(window_latents()[0])
        raise KeyboardInterrupt


def test_tensor_buffer_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_buffer, "MEMORY_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        append_and_fail(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensor_buffer_small_data_needs_no_folder(tmp_path: Path) -> None:
    with TensorBuffer("rows", 40, tmp_path / "nowhere") as buffer:
        buffer.append(window_latents()[0])
        assert len(buffer.tensor()) == 16


def test_tensor_buffer_names_folder_it_cannot_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_buffer, "MEMORY_BYTES", 0)
    with pytest.raises(StorageError, match="nowhere cannot store the latents of 90000 frames"):
        TensorBuffer("the latents of 90000 frames", 90_000, tmp_path / "nowhere").append(window_latents()[0])


def test_tensor_buffer_without_windows_is_empty() -> None:
    with TensorBuffer("rows", 40) as buffer:
        assert len(buffer.tensor()) == 0
