"""What `--help` says of defaults."""

from __future__ import annotations

import pytest

from latentsync.__main__ import main


@pytest.mark.parametrize("command", ["run", "faces", "download", "convert", "doctor"])
def test_only_what_has_a_default_names_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "default: None" not in said
    assert "default: False" not in said


def test_a_default_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "(default: 1247)" in capsys.readouterr().out
