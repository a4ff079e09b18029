"""The output and exit status of `make compat`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from scripts import compat
from scripts.compat import Trial
from scripts.download_comfyui import DownloadError
from tests.support.paths import REPOSITORY

GOOD = Trial("0.18.2", loaded=True, nodes=len(compat.NODES), ran=True, seconds=12.34)
BAD = Trial("0.20.1", loaded=True, nodes=7, seconds=5.0, failure="not listed: LatentSyncSampler\nand a log")


@pytest.mark.parametrize(("trials", "status"), [([GOOD], 0), ([GOOD, BAD], 1), ([BAD, GOOD], 1)])
def test_compat_prints_one_line_per_version(
    trials: list[Trial], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compat, "trials", lambda _: iter(trials))
    monkeypatch.setattr(sys, "argv", ["compat"])
    assert compat.main() == status
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(trial) for trial in trials]
    assert ("and a log" in said.err) == (status == 1)


def test_compat_line_says_how_far_the_pack_came() -> None:
    assert str(GOOD) == "ComfyUI 0.18.2    loaded       9 of 9 nodes   workflow run        12.3 s"
    assert str(BAD) == (
        "ComfyUI 0.20.1    loaded       7 of 9 nodes   workflow not run     5.0 s   not listed: LatentSyncSampler"
    )


def test_unavailable_comfyui_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(version: str, into: Path) -> Path:
        raise DownloadError(f"{version} is nowhere, not even in {into.name}")

    monkeypatch.setattr(compat, "download", download)
    monkeypatch.setattr(compat, "FOLDER", tmp_path)
    assert list(compat.trials(["0.1.0"])) == [Trial("0.1.0", failure="0.1.0 is nowhere, not even in 0.1.0")]


def test_registry_is_told_the_oldest_version() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (told,) = re.findall(r'^requires-comfyui = ">=(.*)"$', text, re.MULTILINE)
    assert told == compat.VERSIONS[0]
