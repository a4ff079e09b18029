"""Which weights the demo takes, and what it says when it cannot take real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latentsync import marks
from latentsync.errors import WeightsError
from latentsync.spec import MODELS, VAE
from latentsync.synthetic import write_models
from scripts import demo


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of the demo; what downloads brings nothing."""
    monkeypatch.setattr(demo, "REAL_BASE", tmp_path / "demo")
    monkeypatch.setattr(demo, "SYNTHETIC_BASE", tmp_path / "untrained")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    return tmp_path / "demo" / "models"


def test_nothing_on_the_machine_gives_untrained_weights(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.prepare_weights(None) == demo.SYNTHETIC_BASE
    said = capsys.readouterr().out
    assert "4 model files are missing" in said
    assert "untrained weights" in said


def test_what_keeps_real_weights_from_being_taken_is_told(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(models)
    (models / VAE.path).write_bytes(b"cut")
    assert demo.prepare_weights(None) == demo.SYNTHETIC_BASE
    assert "sd-vae-ft-mse.safetensors: cannot be read as weights" in capsys.readouterr().out


def test_weights_that_were_asked_for_are_taken_or_the_demo_fails(models: Path) -> None:
    write_models(models)
    assert demo.prepare_weights("1.5") == demo.REAL_BASE
    (models / VAE.path).unlink()
    with pytest.raises(WeightsError, match=r"sd-vae-ft-mse.safetensors"):
        demo.prepare_weights("1.5")
    assert not demo.SYNTHETIC_BASE.exists()


def test_a_file_of_an_unknown_version_is_told_in_one_line(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_models(models)
    monkeypatch.setattr(marks, "VERSION", "no mark")
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo.main() == 1
    unet = (models / MODELS["1.5"].unet.path).with_suffix(".safetensors")
    assert capsys.readouterr().err.startswith(f"The demo failed: {unet}: nobody knows this file")
