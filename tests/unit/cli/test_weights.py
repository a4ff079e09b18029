"""`download`, `convert` and `doctor` as a user runs them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch

from latentsync.cli import doctor
from latentsync.cli.main import main
from latentsync.errors import cannot_import
from latentsync.weights import catalog, locate, metadata, random_init
from latentsync.weights.catalog import WeightFile
from tests.support.file_server import Served, serving
from tests.support.synthetic_models import write_models

FILES = ("latentsync_unet.pt", "tiny.pt", "sd-vae-ft-mse.safetensors", "face_landmarker.task")


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with a small stand-in for every file of 1.6."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("latentsync.weights.download.SPARE_BYTES", 0)
    with serving() as served:

        def stand_in(file: WeightFile) -> WeightFile:
            content = served.files[f"/{file.name}"] = b"\x02\0\0\0\0\0\0\0{}" + file.name.encode()
            digest = hashlib.sha256(content).hexdigest()
            url = f"{served.url}/{file.name}"
            return dataclasses.replace(file, url=url, size_bytes=len(content), sha256=digest, equivalents=())

        model = catalog.MODELS["1.6"]
        monkeypatch.setitem(catalog.MODELS, "1.6", dataclasses.replace(model, unet=stand_in(model.unet)))
        for name in ("WHISPER", "VAE", "FACE_LANDMARKER"):
            monkeypatch.setattr(locate, name, stand_in(getattr(catalog, name)))
        monkeypatch.setattr(doctor, "UNETS", tuple(model.unet for model in catalog.MODELS.values()))
        yield served


def test_download_gets_everything_once(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "read", lambda _: {})  # the stand-ins are no weights
    assert main(["download", "1.6", "--models", str(tmp_path)]) == 0
    for file in locate.required_files("1.6"):
        assert (tmp_path / file.path).read_bytes() == served.files[f"/{file.name}"]
    said = capsys.readouterr().out
    assert [name for name in FILES if name in said] == list(FILES)
    assert "OpenRAIL++" in said
    asked = len(served.requests)
    assert main(["download", "1.6", "--models", str(tmp_path)]) == 0
    assert len(served.requests) == asked == len(FILES)


def test_download_reports_failure(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del served.files["/tiny.pt"]
    assert main(["download", "1.6", "--models", str(tmp_path)]) == 1
    assert (
        f"latentsync: tiny.pt could not be downloaded from {served.url}/tiny.pt (the server answered 404)"
        in capsys.readouterr().err
    )


def test_doctor_reports_complete_install(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "read", lambda _: {})
    for file in locate.required_files("1.6"):
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(served.files[f"/{file.name}"])
    assert main(["doctor", "--models", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["version"], report["problems"]) == (True, "1.6", [])
    assert {file["state"] for file in report["files"]} == {"ok"}
    assert all(library["version"] for library in report["libraries"])
    assert main(["doctor", "--models", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"  ok      {tmp_path / 'latentsync' / 'whisper' / 'tiny.pt'}" in said


def test_doctor_verifies_hashes(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in locate.required_files("1.6"):
        content = served.files[f"/{file.name}"]
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.path).write_bytes(content[:-1] + b"?")
    assert main(["doctor", "--models", str(tmp_path), "--version", "1.6", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [problem.partition(" The SHA-256")[0] for problem in report["problems"][:3]] == [
        f"{tmp_path / name} is damaged."
        for name in ("latentsync/1.6/latentsync_unet.pt", "latentsync/whisper/tiny.pt", "vae/sd-vae-ft-mse.safetensors")
    ]


def test_doctor_says_what_is_missing_and_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(tmp_path)
    vae = tmp_path / "vae" / "sd-vae-ft-mse.safetensors"
    vae.write_bytes(b"cut")
    assert main(["doctor", "--models", str(tmp_path), "--json"]) == 1
    told = capsys.readouterr()
    report = json.loads(told.out)
    states = {file["name"]: file["state"] for file in report["files"]}
    assert states == {
        "latentsync_unet.safetensors": "ok",
        "tiny.pt": "ok",
        "sd-vae-ft-mse.safetensors": "wrong",
        "face_landmarker.task": "missing",
    }
    missing = report["files"][3]
    assert missing["folder"] == str(tmp_path / "latentsync")
    assert missing["size_bytes"] == 3_758_596
    assert missing["url"].startswith("https://storage.googleapis.com/mediapipe-models/")
    assert len(report["problems"]) == 2
    fix = f'"{sys.executable}" -m latentsync download {report["version"]} --models "{tmp_path}"'
    assert report["fixes"] == [fix]
    assert told.err.endswith(f"To fix the problems, run:\n  {fix}\n")
    assert told.err.startswith("latentsync: A run would fail:\n")


def test_doctor_names_missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", {"torch": "torch", "no_such_library": "no-such-library>=1"})
    report = doctor.examine(tmp_path, None)
    assert report.libraries[1].version is None
    assert "no_such_library cannot be imported" in report.problems[0]
    assert report.fixes[0] == f'"{sys.executable}" -m pip install "no-such-library>=1"'


def test_doctor_reports_broken_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "brokenbinary.py").write_text("raise RuntimeError('compiled for another numpy')", encoding="utf-8")
    (tmp_path / "leftover").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "LIBRARIES", {"torch": "torch", "brokenbinary": "broken", "leftover": "leftover"})
    monkeypatch.delattr(torch, "accelerator")
    (tmp_path / "latentsync").mkdir()
    (tmp_path / "latentsync" / "face_landmarker.task").write_bytes(b"")
    monkeypatch.setattr(locate, "check_size", lambda *_: torch.no_such_thing)
    assert main(["doctor", "--models", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    for problem in (
        "brokenbinary cannot be imported (compiled for another numpy)",
        "leftover cannot be imported (",
        "No device can be used: torch ",
        "has no attribute 'no_such_thing'",
    ):
        assert problem in said


def test_convert_refuses_a_bad_target_before_hashing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(path: Path) -> None:
        raise AssertionError(f"{path} is hashed")

    write_models(tmp_path)
    monkeypatch.setattr("latentsync.weights.convert.sha256_file", too_late)
    source = str(tmp_path / "latentsync" / "1.5" / "latentsync_unet.safetensors")
    assert main(["convert", source, "-o", str(tmp_path / "no" / "half.safetensors")]) == 2
    assert f"The folder {tmp_path / 'no'} does not exist" in capsys.readouterr().err
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert main(["convert", source, "-o", str(tmp_path / "half.safetensors")]) == 1
    message = capsys.readouterr().err
    assert f"latentsync: {tmp_path} has 0 MB of free space, but the output needs" in message


def test_convert_writes_beside_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(tmp_path)
    source = tmp_path / "latentsync" / "1.5" / "latentsync_unet.safetensors"
    target = tmp_path / "half.safetensors"
    assert main(["convert", str(source), "-o", str(target), "--precision", "bf16"]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: 1.5, bf16, ")
    assert main(["convert", str(source)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_convert_needs_the_version_of_unknown_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "tuned.pt"
    torch.save({"state_dict": random_init.unet().state_dict()}, source)
    assert main(["convert", str(source)]) == 2
    assert 'Set "version" to 1.5 or 1.6' in capsys.readouterr().err
    assert main(["convert", str(source), "--version", "1.6"]) == 0
    assert metadata.read(tmp_path / "tuned.safetensors")[metadata.RESOLUTION] == "512"
    assert main(["convert", str(tmp_path / "none.pt")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_doctor_names_missing_system_library(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MediaPipe imports without the GL libraries, and fails when it opens its model."""

    def without_gl(*_: object) -> None:
        raise cannot_import(
            "MediaPipe", "mediapipe>=0.10.32", OSError("libGLESv2.so.2: cannot open shared object file")
        )

    monkeypatch.setattr(doctor, "open_detector", without_gl)
    assert main(["doctor", "--models", str(tmp_path), "--json"]) == 1
    problems = " ".join(json.loads(capsys.readouterr().out)["problems"])
    assert "libGLESv2.so.2" in problems
    assert "libgles2" in problems


def test_doctor_names_old_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av, "__version__", "15.1.0")
    assert main(["doctor", "--models", str(tmp_path), "--json"]) == 1
    assert "av 15.1.0 is too old. av>=16 is needed." in json.loads(capsys.readouterr().out)["problems"]
