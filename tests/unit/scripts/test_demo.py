"""Which weights the demo uses, and its messages when it cannot use real ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from latentsync.errors import WeightsError
from latentsync.weights import metadata
from latentsync.weights.catalog import MODELS, VAE
from scripts import demo
from tests.support.synthetic_models import write_models


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of the demo. Downloads bring nothing."""
    monkeypatch.setattr(demo, "REAL_BASE", tmp_path / "demo")
    monkeypatch.setattr(demo, "MINIATURE_BASE", tmp_path / "miniature")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    return tmp_path / "demo" / "models"


def test_demo_without_weights_uses_the_miniature(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.prepare_weights(None) == demo.MINIATURE_BASE
    said = capsys.readouterr().out
    assert "Model files are missing (4)" in said
    assert "trained on its face" in said


def test_demo_says_why_weights_are_not_used(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_models(models)
    (models / VAE.path).write_bytes(b"cut")
    assert demo.prepare_weights(None) == demo.MINIATURE_BASE
    assert "sd-vae-ft-mse.safetensors cannot be read as weights" in capsys.readouterr().out


def test_demo_requested_weights_are_used_or_it_fails(models: Path) -> None:
    write_models(models)
    assert demo.prepare_weights("1.5") == demo.REAL_BASE
    (models / VAE.path).unlink()
    with pytest.raises(WeightsError, match=r"sd-vae-ft-mse.safetensors"):
        demo.prepare_weights("1.5")
    assert not demo.MINIATURE_BASE.exists()


def test_demo_names_file_of_unknown_version(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_models(models)
    monkeypatch.setattr(metadata, "VERSION", "no mark")
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo.main() == 1
    unet = (models / MODELS["1.5"].unet.path).with_suffix(".safetensors")
    assert capsys.readouterr().err.startswith(f"The demo failed: {unet} is not an official file")
