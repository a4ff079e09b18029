"""Atomic writes, claims, and the temporary files of killed processes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from latentsync import fileio
from latentsync.fileio import atomic_write, claim, remove_stale_files, sha256_file, temp_path
from latentsync.progress import run

CONTENT = bytes(range(256)) * 8


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def named(started: float, pid: int, machine: str | None = None) -> str:
    """The name of a temporary file of another process."""
    return f".latentsync-{machine or fileio._machine()}-{pid}-{round(started)}-0123456789ab.part.mp4"


def free_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_sha256_file_yields_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fileio, "BLOCK_BYTES", 1000)
    path = tmp_path / "weights.pt"
    path.write_bytes(CONTENT)
    steps = list(sha256_file(path))
    assert [(step.done, step.total) for step in steps] == [(1000, 2048), (2000, 2048), (2048, 2048)]
    assert run(sha256_file(path)) == hashlib.sha256(CONTENT).hexdigest()


def test_atomic_write_replaces_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    atomic_write(path, lambda temporary: temporary.write_bytes(path.read_bytes() + b"er"))
    assert path.read_bytes() == b"newer"
    assert names(tmp_path) == ["out.json"]


def test_atomic_write_leaves_nothing_on_failure(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(tmp_path / "out.json", fail)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        atomic_write(tmp_path / "folder", b"a file cannot replace a folder")
    assert names(tmp_path) == ["folder"]


def test_temp_path_is_hidden_unique_and_keeps_the_suffix(tmp_path: Path) -> None:
    one, other = temp_path(tmp_path / "a [b] (c).webm"), temp_path(tmp_path / "a [b] (c).webm")
    assert one != other
    assert (one.parent, one.suffix, one.name[0]) == (tmp_path, ".webm", ".")


def test_remove_stale_files_keeps_those_of_living_processes(tmp_path: Path) -> None:
    mine = temp_path(tmp_path / "out.mp4")
    mine.touch()
    parent = psutil.Process(os.getppid())
    living = tmp_path / named(parent.create_time(), parent.pid)
    living.touch()
    foreign = tmp_path / ".latentsync-notes.txt"
    foreign.touch()
    remove_stale_files(tmp_path)
    assert names(tmp_path) == sorted([mine.name, living.name, foreign.name])


def test_remove_stale_files_deletes_those_of_dead_ones(tmp_path: Path) -> None:
    (tmp_path / named(time.time(), free_pid())).touch()
    (tmp_path / named(1.0, os.getpid())).touch()  # the process id is in use again
    remove_stale_files(tmp_path)
    assert names(tmp_path) == []


def test_files_of_other_machines_are_stale_after_a_week(tmp_path: Path) -> None:
    path = tmp_path / named(1.0, os.getpid(), "00000000")
    path.touch()
    remove_stale_files(tmp_path)
    assert path.exists()
    old = time.time() - fileio.FOREIGN_AGE_SECONDS - 60
    os.utime(path, (old, old))
    remove_stale_files(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize(("content", "kept"), [("out.mp4", False), ("../out.mp4", False), ("", True), ("no", True)])
def test_stale_claim_frees_the_name_it_had_reserved(tmp_path: Path, content: str, kept: bool) -> None:
    stale = tmp_path / named(1.0, os.getpid()).replace(".part.mp4", ".claim")
    stale.write_text(content, encoding="utf-8")
    (tmp_path / "out.mp4").touch()
    remove_stale_files(tmp_path)
    assert names(tmp_path) == (["out.mp4"] if kept else [])


def test_stale_claim_never_deletes_a_video(tmp_path: Path) -> None:
    stale = tmp_path / named(1.0, os.getpid()).replace(".part.mp4", ".claim")
    stale.write_text("out.mp4", encoding="utf-8")
    (tmp_path / "out.mp4").write_bytes(b"a video")
    remove_stale_files(tmp_path)
    assert names(tmp_path) == ["out.mp4"]


def test_claim_sees_other_claims_of_the_name(tmp_path: Path) -> None:
    with claim(tmp_path / "out.mp4") as first, claim(tmp_path / "other.mp4") as other:
        assert first()
        assert other()
        with claim(tmp_path / "out.webm") as second:
            assert not second()
            assert not first()
        assert first()
    assert names(tmp_path) == []
