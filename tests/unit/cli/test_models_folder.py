"""The default models folder of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from latentsync.cli import options
from tests.support.paths import REPOSITORY


def taken(*arguments: str) -> Path:
    parser = argparse.ArgumentParser()
    options.add_models_folder(parser)
    return parser.parse_args(arguments).models


def test_models_folder_prefers_the_packs_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert options.BESIDE_PACK == REPOSITORY / "models"
    monkeypatch.setattr(options, "BESIDE_PACK", tmp_path / "models")
    assert taken() == Path.home() / ".cache" / "latentsync"
    (tmp_path / "models").mkdir()
    assert taken() == tmp_path / "models"
    assert taken("--models", "elsewhere") == Path("elsewhere")
