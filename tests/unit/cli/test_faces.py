"""Errors of `faces` about its contact sheet."""

from __future__ import annotations

import errno
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.cli.main import main
from latentsync.output.video_writer import VideoWriter
from scripts.sample_clip import make_sample


def empty_clip(folder: Path) -> tuple[Path, Path]:
    """A gray video, and landmarks without faces."""
    video, landmarks = folder / "gray.mp4", folder / "nobody.json"
    with VideoWriter(video, rate=Fraction(25), height=64, width=64) as writer:
        for _ in range(3):
            writer.write(np.full((64, 64, 3), 127, np.uint8))
    landmarks.write_text(json.dumps({"frames": [[]], "image_size": [64, 64]}), encoding="utf-8")
    return video, landmarks


def command(video: Path, landmarks: Path, output: Path) -> int:
    return main(["faces", str(video), "--face-landmarks", str(landmarks), "-o", str(output)])


def test_faces_without_faces_draws_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "faces.png"
    assert command(*empty_clip(tmp_path), output) == 0
    told = capsys.readouterr()
    assert f"note: LatentSync found no face, so it wrote no picture to {output}" in told.err
    assert told.out == "gray.mp4: 3 frames, 1 shot(s), 0 face(s)\n"
    assert not output.exists()


def test_faces_reports_missing_folder_before_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "none.mp4", tmp_path / "none.json", tmp_path / "no" / "faces.png") == 2
    assert capsys.readouterr().err == (
        f"latentsync: The folder {tmp_path / 'no'} does not exist. Create this folder, or choose another output.\n"
    )


def test_faces_never_replaces_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "face.png"
    picture.write_bytes(b"mine")
    assert command(picture, tmp_path / "none.json", picture) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert picture.read_bytes() == b"mine"


def test_faces_full_disk_keeps_older_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = make_sample(tmp_path / "sample", seconds=0.3)
    output = tmp_path / "faces.png"
    output.write_bytes(b"older")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert command(sample.video, sample.landmarks, output) == 1
    told = capsys.readouterr()
    assert f"latentsync: {output} cannot be written (No space left on device)" in told.err
    assert "5 frames, 1 shot(s), 1 face(s)" in told.out, "what was found is not lost"
    assert output.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.png", "sample"]


def test_faces_names_picture_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = make_sample(tmp_path / "sample", seconds=0.3)
    output = tmp_path / "faces.png"
    output.mkdir()
    assert command(sample.video, sample.landmarks, output) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"latentsync: {output} is a folder. Choose another output.")
