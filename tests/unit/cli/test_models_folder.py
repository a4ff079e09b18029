"""The default models folder of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from latentsync.commands import models_folder
from tests.support.paths import REPOSITORY


def taken(*arguments: str) -> Path:
    parser = argparse.ArgumentParser()
    models_folder.add_flag(parser)
    return parser.parse_args(arguments).models


def test_models_folder_prefers_the_packs_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert models_folder.BESIDE == REPOSITORY / "models"
    monkeypatch.setattr(models_folder, "BESIDE", tmp_path / "models")
    assert taken() == Path.home() / ".cache" / "latentsync"
    (tmp_path / "models").mkdir()
    assert taken() == tmp_path / "models"
    assert taken("--models", "elsewhere") == Path("elsewhere")
