"""The record says what happened, in the form that its schema promises."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from latentsync.errors import MediaError
from latentsync.output import run_record
from latentsync.output.output_path import reserve_path
from latentsync.output.run_record import (
    FileDigest,
    FrameCounts,
    Recorder,
    RunRecord,
    TensorInfo,
    describe_source,
    describe_tensor,
    describe_weights,
    digest_bytes,
    digest_file,
    tags,
)
from latentsync.video.frame_source import ImageBatch
from tests.support.paths import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "docs" / "record.schema.json").read_text(encoding="utf-8"))

KILLED = """
import os
import sys
from pathlib import Path
from latentsync.output.output_path import reserve_path
from latentsync.output.run_record import Recorder, RunRecord
Path.replace = lambda *_: os._exit(9)  # as if killed before the record is whole
with reserve_path([Path(sys.argv[1])]), Recorder(Path(sys.argv[1]), RunRecord()):
    pass
"""


def read(path: Path) -> dict[str, Any]:
    """A record, refused if it is not as the schema has it."""
    record = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    return record


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_whole_run_is_written_down(tmp_path: Path) -> None:
    video = tmp_path / "\u6d4b\u8bd5 ü x.mp4"
    record = RunRecord(
        model_version="1.6",
        seed=7,
        consent="signed by Ada",
        frames=FrameCounts(10, 8, 2),
        settings={"paste_mode": "mouth"},
        model_files=[FileDigest("model", "unet.pt", 5, None)],
        inputs=[FileDigest("audio", "a.wav", 5, "0" * 64), TensorInfo("video", "batch", (2, 8, 8, 3), "float32")],
    )
    with Recorder(video, record):
        video.write_bytes(b"a video")
    written = read(video.with_suffix(".json"))
    assert written["outcome"] == "done"
    assert written["output"]["sha256"] == hashlib.sha256(b"a video").hexdigest()
    assert (written["output"]["name"], written["output"]["size_bytes"]) == (video.name, 7)
    assert (written["consent"], written["seed"], written["frames"]["untouched"]) == ("signed by Ada", 7, 2)
    assert written["software"]["torch"].startswith("2")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([video.name, video.with_suffix(".json").name])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(MediaError("/secret/folder/clip.mp4: is damaged"), "failed"), (KeyboardInterrupt(), "cancelled")],
)
def test_a_run_that_fails_says_why_and_names_no_folder(tmp_path: Path, error: BaseException, outcome: str) -> None:
    with pytest.raises(type(error)), Recorder(tmp_path / "out.mp4", RunRecord()):
        raise error
    written = read(tmp_path / "out.json")
    assert written["outcome"] == outcome
    assert written["output"] is None
    assert "secret" not in json.dumps(written)
    assert written["reason"] in ("clip.mp4: is damaged", "KeyboardInterrupt")


def test_ctrl_c_while_the_video_is_hashed_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_record, "digest_file", interrupt)
    with pytest.raises(KeyboardInterrupt), Recorder(tmp_path / "out.mp4", RunRecord()):
        (tmp_path / "out.mp4").write_bytes(b"a video")
    assert read(tmp_path / "out.json")["outcome"] == "cancelled"


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), MediaError("the disk is full")])
def test_a_new_video_never_keeps_the_record_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    video = tmp_path / "out.mp4"
    with Recorder(video, RunRecord(consent="signed by Ada")):
        video.write_bytes(b"a video")

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(run_record, "digest_file", fail)
    with pytest.raises(type(fault)), Recorder(video, RunRecord()):
        video.write_bytes(b"a newer video")
    written = read(tmp_path / "out.json")
    assert written["outcome"] in ("cancelled", "failed")
    assert written["consent"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]


def test_a_video_that_is_gone_before_the_hash_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(MediaError), Recorder(tmp_path / "out.mp4", RunRecord()):
        pass
    written = read(tmp_path / "out.json")
    assert (written["outcome"], written["output"]) == ("failed", None)


def test_a_failed_run_leaves_an_older_video_its_record(tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    with Recorder(video, RunRecord(consent="signed by Ada")):
        video.write_bytes(b"a video")
    with pytest.raises(MediaError), Recorder(video, RunRecord()):
        raise MediaError("the disk is full")
    assert read(tmp_path / "out.json")["consent"] == "signed by Ada"
    assert read(tmp_path / "out.failed.json")["reason"] == "the disk is full"


def fail_without_a_place(video: Path) -> None:
    """A run whose record's place is taken while it is at work."""
    with Recorder(video, RunRecord()):
        video.with_suffix(".json").unlink()
        video.with_suffix(".json").mkdir()
        raise MediaError("the disk is full")


def test_a_record_that_cannot_be_written_hides_no_failure(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="the disk is full"):
        fail_without_a_place(tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"], "no temporary file"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("'/home/ann/x.mp4' is damaged", "'x.mp4' is damaged"),
        ("put it into C:\\Users\\ann\\models\\x.pt (5 MB)", "put it into x.pt (5 MB)"),
        ("at 24 / 25 of 3/4 it is 1920x1080", "at 24 / 25 of 3/4 it is 1920x1080"),
    ],
)
def test_no_folder_is_in_a_reason(tmp_path: Path, said: str, written: str) -> None:
    with pytest.raises(MediaError), Recorder(tmp_path / "out.mp4", RunRecord()):
        raise MediaError(said)
    assert read(tmp_path / "out.json")["reason"] == written


def test_a_folder_with_spaces_is_not_named(tmp_path: Path) -> None:
    folder = tmp_path / "a secret folder"
    folder.mkdir()
    with pytest.raises(MediaError), Recorder(folder / "out.mp4", RunRecord()):
        raise MediaError(f"{folder / 'out.mp4'}: cannot be written")
    assert read(folder / "out.json")["reason"] == "out.mp4: cannot be written"


def test_a_run_that_is_killed_has_a_record(tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    with Recorder(video, RunRecord(consent="signed by Ada")):
        written = read(tmp_path / "out.json")
        jsonschema.Draft202012Validator(SCHEMA).validate(written)
        assert (written["outcome"], written["output"]) == ("unfinished", None)
        assert "was killed" in written["reason"]
        video.write_bytes(b"a video")
    assert (read(tmp_path / "out.json")["outcome"], read(tmp_path / "out.json")["reason"]) == ("done", "")
    with Recorder(video, RunRecord()):
        assert read(tmp_path / "out.failed.json")["outcome"] == "unfinished"
        assert read(tmp_path / "out.json")["consent"] == "signed by Ada", "the older video keeps its own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]


@pytest.mark.parametrize("there", [False, True])
def test_recorder_removes_files_of_a_run_killed_while_writing(tmp_path: Path, there: bool) -> None:
    video = tmp_path / "out.mp4"
    if there:
        video.write_bytes(b"an older video")
    process = subprocess.run([sys.executable, "-c", KILLED, str(video)], cwd=REPOSITORY, check=False)
    assert process.returncode == 9
    left = [path.name for path in tmp_path.iterdir() if path != video]
    assert len(left) == 2, "its claim and half its record"
    assert video.exists(), "the older video, or the empty file of the reserved name"
    with reserve_path([tmp_path / "another.mp4"]):
        pass
    assert [path.name for path in tmp_path.iterdir()] == (["out.mp4"] if there else [])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has another limit")
@pytest.mark.parametrize("stem", ["x" * 243, "\u6d4b" * 81])
def test_the_longest_names(tmp_path: Path, stem: str) -> None:
    video = tmp_path / f"{stem}.mp4"
    for _ in range(2):
        with reserve_path([video]), Recorder(video, RunRecord()):
            video.write_bytes(b"a video")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}.json", f"{stem}.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has another limit")
def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match="File name too long"),
        Recorder(tmp_path / ("x" * 251), RunRecord()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_record_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with (
        pytest.raises(MediaError, match=r"out\.json cannot be written"),
        Recorder(tmp_path / "out.mp4", RunRecord()),
    ):
        (tmp_path / "out.mp4").write_bytes(b"x")


def test_hashes_are_of_the_contents(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    digest = hashlib.sha256(b"sound").hexdigest()
    assert digest_file("audio", tmp_path / "a.wav") == FileDigest("audio", "a.wav", 5, digest)
    assert digest_bytes("audio", "a.wav", b"sound") == FileDigest("audio", "a.wav", 5, digest)
    with pytest.raises(MediaError, match=r"b\.wav cannot be read"):
        digest_file("audio", tmp_path / "b.wav")


class Unreadable(torch.Tensor):
    """Any operation on its values fails. Shape and dtype are known."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.shape.__get__, torch.Tensor.dtype.__get__, torch.Tensor.ndim.__get__):
            return super().__torch_function__(func, types, args, kwargs or {})
        raise AssertionError(f"the tensor was read: {func}")


def test_of_tensor_does_not_read_the_content() -> None:
    """A minute of 1080p is 37 GB: hashing it would take longer than making the video."""
    images = torch.zeros(2, 8, 6, 3).as_subclass(Unreadable)
    assert describe_tensor("video", "batch", images) == TensorInfo("video", "batch", (2, 8, 6, 3), "float32")


def test_of_source_does_not_read_an_image_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageBatch(torch.zeros(2, 8, 6, 3, dtype=torch.float16), Fraction(25))
    monkeypatch.setattr(hashlib, "sha256", None)
    assert describe_source(source) == TensorInfo("video", source.name, (2, 8, 6, 3), "float16")


def test_of_weights_does_not_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "unet.pt"
    path.write_bytes(b"weights")
    monkeypatch.setattr(Path, "open", None)
    assert describe_weights(path) == FileDigest("model", "unet.pt", 7, None)


def test_the_tags_say_that_it_was_made() -> None:
    said = tags(RunRecord(model_version="1.5", seed=3, consent="yes, in writing", settings={"crf": 18}))
    assert said["AI-modified"] == "yes"
    assert "LatentSync 1.5" in said["comment"]
    assert json.loads(said["latentsync"])["seed"] == 3
    assert said["consent"] == "yes, in writing"
    assert "consent" not in tags(RunRecord())
