"""Where the command line looks for weights unless told."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from latentsync.cli import options

REPOSITORY = Path(__file__).resolve().parents[2]


def taken(*arguments: str) -> Path:
    parser = argparse.ArgumentParser()
    options.add_flag(parser)
    return parser.parse_args(arguments).models


def test_the_packs_own_folder_is_taken_where_it_is_there_else_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert options.BESIDE == REPOSITORY / "models"
    monkeypatch.setattr(options, "BESIDE", tmp_path / "models")
    assert taken() == Path.home() / ".cache" / "latentsync"
    (tmp_path / "models").mkdir()
    assert taken() == tmp_path / "models"
    assert taken("--models", "elsewhere") == Path("elsewhere")
