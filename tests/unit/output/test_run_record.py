"""The JSON record of a run, and its schema."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from latentsync.claim import claimed
from latentsync.errors import MediaError
from latentsync.output.run_record import (
    FileDigest,
    FrameCounts,
    Recorder,
    RunRecord,
    digest_bytes,
    digest_file,
    digest_tensor,
    tags,
)
from tests.support.paths import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "docs" / "record.schema.json").read_text(encoding="utf-8"))

KILLED = """
import os
import sys
from pathlib import Path
from latentsync.claim import claimed
from latentsync.output.run_record import Recorder, RunRecord
Path.replace = lambda *_: os._exit(9)  # as if killed before the record is whole
with claimed([Path(sys.argv[1])]), Recorder(Path(sys.argv[1]), RunRecord()):
    pass
"""


def read(path: Path) -> dict[str, Any]:
    """Read a record and validate it."""
    record = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    return record


def test_record_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_record_of_complete_run(tmp_path: Path) -> None:
    video = tmp_path / "\u6d4b\u8bd5 ü x.mp4"
    record = RunRecord(
        model_version="1.6",
        seed=7,
        consent="signed by Ada",
        frames=FrameCounts(10, 8, 2),
        settings={"blend": "mouth"},
        model_files=[FileDigest("model", "unet.pt", 5, "0" * 64)],
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
def test_record_of_failed_run_names_reason_and_no_folder(tmp_path: Path, error: BaseException, outcome: str) -> None:
    with pytest.raises(type(error)), Recorder(tmp_path / "out.mp4", RunRecord()):
        raise error
    written = read(tmp_path / "out.json")
    assert written["outcome"] == outcome
    assert written["output"] is None
    assert "secret" not in json.dumps(written)
    assert written["reason"] in ("clip.mp4: is damaged", "KeyboardInterrupt")


def test_record_of_failed_run_keeps_older_record(tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    with Recorder(video, RunRecord(consent="signed by Ada")):
        video.write_bytes(b"a video")
    with pytest.raises(MediaError), Recorder(video, RunRecord()):
        raise MediaError("the disk is full")
    assert read(tmp_path / "out.json")["consent"] == "signed by Ada"
    assert read(tmp_path / "out.failed.json")["reason"] == "the disk is full"


def fail_without_a_place(video: Path) -> None:
    """A run whose record's name is taken while it works."""
    with Recorder(video, RunRecord()):
        video.with_suffix(".json").unlink()
        video.with_suffix(".json").mkdir()
        raise MediaError("the disk is full")


def test_record_write_error_does_not_hide_run_error(tmp_path: Path) -> None:
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
def test_record_reason_has_no_folder(tmp_path: Path, said: str, written: str) -> None:
    with pytest.raises(MediaError), Recorder(tmp_path / "out.mp4", RunRecord()):
        raise MediaError(said)
    assert read(tmp_path / "out.json")["reason"] == written


def test_record_reason_has_no_folder_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a secret folder"
    folder.mkdir()
    with pytest.raises(MediaError), Recorder(folder / "out.mp4", RunRecord()):
        raise MediaError(f"{folder / 'out.mp4'}: cannot be written")
    assert read(folder / "out.json")["reason"] == "out.mp4: cannot be written"


def test_record_of_killed_run_exists(tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    with Recorder(video, RunRecord(consent="signed by Ada")):
        written = read(tmp_path / "out.json")
        jsonschema.Draft202012Validator(SCHEMA).validate(written)
        assert (written["outcome"], written["output"]) == ("unfinished", None)
        assert "ended from outside" in written["reason"]
        video.write_bytes(b"a video")
    assert (read(tmp_path / "out.json")["outcome"], read(tmp_path / "out.json")["reason"]) == ("done", "")
    with Recorder(video, RunRecord()):
        assert read(tmp_path / "out.failed.json")["outcome"] == "unfinished"
        assert read(tmp_path / "out.json")["consent"] == "signed by Ada", "the older video keeps its own"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]


@pytest.mark.parametrize("there", [False, True])
def test_record_temp_file_of_killed_run_is_removed(tmp_path: Path, there: bool) -> None:
    video = tmp_path / "out.mp4"
    if there:
        video.touch()
    process = subprocess.run([sys.executable, "-c", KILLED, str(video)], cwd=REPOSITORY, check=False)
    assert process.returncode == 9
    left = [path.name for path in tmp_path.iterdir() if path != video]
    assert len(left) == 2, "its lock and half its record"
    with claimed([tmp_path / "another.mp4"]):
        pass
    assert [path for path in tmp_path.iterdir() if path != video] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has another limit")
@pytest.mark.parametrize("stem", ["x" * 231, "\u6d4b" * 77])
def test_record_accepts_longest_names(tmp_path: Path, stem: str) -> None:
    video = tmp_path / f"{stem}.mp4"
    for _ in range(2):
        with claimed([video]), Recorder(video, RunRecord()):
            video.write_bytes(b"a video")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}.json", f"{stem}.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has another limit")
def test_record_names_too_long_name(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match="File name too long"),
        Recorder(tmp_path / ("x" * 232), RunRecord()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_record_names_file_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with (
        pytest.raises(MediaError, match=r"out\.json: cannot be written"),
        Recorder(tmp_path / "out.mp4", RunRecord()),
    ):
        (tmp_path / "out.mp4").write_bytes(b"x")


def test_record_hashes_are_of_contents(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    digest = hashlib.sha256(b"sound").hexdigest()
    assert digest_file("audio", tmp_path / "a.wav") == FileDigest("audio", "a.wav", 5, digest)
    assert digest_bytes("audio", "a.wav", b"sound") == FileDigest("audio", "a.wav", 5, digest)
    values = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert digest_tensor("video", "batch", values).sha256 == hashlib.sha256(values.numpy().tobytes()).hexdigest()
    with pytest.raises(MediaError, match=r"b\.wav: cannot be read"):
        digest_file("audio", tmp_path / "b.wav")


def test_record_tags_say_it_is_generated() -> None:
    said = tags(RunRecord(model_version="1.5", seed=3, consent="yes, in writing", settings={"crf": 18}))
    assert said["AI-modified"] == "yes"
    assert "LatentSync 1.5" in said["comment"]
    assert json.loads(said["latentsync"])["seed"] == 3
    assert said["consent"] == "yes, in writing"
    assert "consent" not in tags(RunRecord())
