"""Faults during a run: files change, folders vanish, memory runs out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentsync import tensor_buffer
from latentsync.cli import run
from latentsync.cli.main import main
from latentsync.errors import MediaError, StorageError
from latentsync.tensor_buffer import TensorBuffer
from latentsync.video.video_file import VideoFile
from latentsync.weights import loader
from tests.support.broken_weights import UNET
from tests.support.numbered_clip import make_clip, packets
from tests.support.scene import Scene


def damaged(scene: Scene) -> Path:
    """A valid video with three zeroed frames in the middle."""
    data = bytearray(scene.good.video.read_bytes())
    for position, size in packets(scene.good.video)[4:7]:
        data[position : position + size] = bytes(size)
    return scene.written("damaged.mp4", bytes(data))


def test_run_passes_over_frames_that_do_not_decode(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(scene.run("--save-record", video=damaged(scene))) == 0
    said = capsys.readouterr().err
    (note,) = [line for line in said.splitlines() if line.startswith("note: damaged.mp4")]
    assert VideoFile(scene.output).frame_count == 15
    record = json.loads((scene.folder / "out.json").read_text(encoding="utf-8"))
    assert record["notes"] == [note.removeprefix("note: ")]


def read_on(video: VideoFile) -> str:
    """The warning or the error of reading all frames."""
    try:
        frames = list(video.read(range(60)))
    except MediaError as error:
        return f"`{error}`"
    assert len(frames) == 60
    (remark,) = video.warnings()
    return f"`{remark}`"


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("is cut in half", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
        ("becomes empty", lambda path: path.write_bytes(b"")),
        ("becomes another file", lambda path: path.write_text("words", encoding="utf-8")),
        ("is deleted", lambda path: path.unlink()),
    ],
)
def test_video_file_that_changes_is_reported(tmp_path: Path, what: str, change: Callable[[Path], object]) -> None:
    """The file changes after indexing and before its frames are read."""
    path = tmp_path / "clip.mp4"
    make_clip(path, range(60))
    video = VideoFile(path)
    change(path)
    happened = read_on(video)
    assert "clip.mp4 " in happened


def test_tensor_buffer_survives_deleted_temp_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_buffer, "MEMORY_BYTES", 0)
    folder = tmp_path / "temp"
    folder.mkdir()
    rows = torch.rand(16, 4, 8, 8)
    with TensorBuffer("rows", 32, folder) as kept:
        kept.append(rows)
        shutil.rmtree(folder)
        kept.append(rows)
        assert torch.equal(kept.tensor(), torch.cat([rows, rows]).half())
    with (
        pytest.raises(StorageError, match="temp cannot store the rows"),
        TensorBuffer("the rows", 32, folder) as kept,
    ):
        kept.append(rows)


def test_loader_keeps_old_weights_of_replaced_file(scene: Scene) -> None:
    """Another file takes the name by renaming, as downloads do it."""
    place = scene.folder / "unet.safetensors"
    shutil.copyfile(scene.models / UNET, place)
    unet = loader.load_unet(place)
    before = unet.conv_in.weight.clone()
    other = {key: torch.zeros_like(tensor) for key, tensor in load_file(place).items()}
    save_file(other, scene.folder / "other.safetensors")
    (scene.folder / "other.safetensors").replace(place)
    assert torch.equal(unet.conv_in.weight, before)
    assert not loader.load_unet(place).conv_in.weight.any()


def test_run_out_of_memory_is_one_sentence(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(run, "load_pipeline", full)
    assert main(scene.run("--save-record")) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("latentsync: ")]
    assert "Out of memory" in line
    assert json.loads((scene.folder / "out.json").read_text(encoding="utf-8"))["outcome"] == "failed"
    monkeypatch.undo()
    assert main(scene.run("--save-record")) == 0


def test_run_unexpected_error_is_one_sentence(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the system that no code expects is still one sentence."""

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(run, "load_pipeline", refused)
    assert main(scene.run()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "latentsync: /somewhere cannot be written (Permission denied). "
        "Check the file name, the folder, the permissions and the free space."
    )
    assert np.all([not path.name.startswith(".") for path in scene.folder.iterdir()])
