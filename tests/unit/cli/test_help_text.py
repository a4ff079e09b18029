"""Defaults in the output of `--help`."""

from __future__ import annotations

import pytest

from latentsync.cli.main import main


@pytest.mark.parametrize("command", ["run", "batch", "faces", "score", "download", "convert", "doctor", "bench"])
def test_help_names_default_only_where_there_is_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "default: None" not in said
    assert "default: False" not in said


def test_help_names_a_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "(default: 1247)" in capsys.readouterr().out
