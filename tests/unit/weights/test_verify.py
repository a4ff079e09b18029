"""Checksums that are computed once and remembered."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from latentsync import verify
from latentsync.progress import run

CONTENT = bytes(range(256)) * 8


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verify, "REMEMBERED_BYTES", 1000)
    path = tmp_path / "weights.pt"
    path.write_bytes(CONTENT)
    return path


def blocks_read(path: Path) -> int:
    return len(list(verify.sha256(path)))


def test_verify_computes_sha256_in_steps(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "BLOCK_BYTES", 1000)
    steps = list(verify.compute(file))
    assert [(step.done, step.total) for step in steps] == [(1000, 2048), (2000, 2048), (2048, 2048)]
    assert run(verify.compute(file)) == hashlib.sha256(CONTENT).hexdigest()


def test_verify_reads_a_file_once(file: Path) -> None:
    first = run(verify.sha256(file))
    assert blocks_read(file) == 0
    assert run(verify.sha256(file)) == first == hashlib.sha256(CONTENT).hexdigest()


def test_verify_reads_changed_file_again(file: Path) -> None:
    run(verify.sha256(file))
    file.write_bytes(CONTENT[::-1])
    assert run(verify.sha256(file)) == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_verify_compares_modification_time(file: Path) -> None:
    run(verify.sha256(file))
    os.utime(file, ns=(1, 1))
    assert blocks_read(file) == 1


@pytest.mark.parametrize("note", ["", "[]", "{", '{"sha256": "abc"}'])
def test_verify_ignores_broken_sidecar(file: Path, note: str) -> None:
    verify.note_of(file).write_text(note, encoding="utf-8")
    assert run(verify.sha256(file)) == hashlib.sha256(CONTENT).hexdigest()


def test_verify_writes_no_sidecar_for_small_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "REMEMBERED_BYTES", len(CONTENT) + 1)
    run(verify.sha256(file))
    assert not verify.note_of(file).exists()


def test_verify_works_in_read_only_folder(file: Path) -> None:
    verify.note_of(file).mkdir()  # as good as a read-only folder, and works for root
    assert run(verify.sha256(file)) == hashlib.sha256(CONTENT).hexdigest()
    assert blocks_read(file) == 1


def test_verify_cancel_leaves_no_sidecar(file: Path) -> None:
    work = verify.sha256(file)
    next(work)
    work.close()
    assert not verify.note_of(file).exists()
