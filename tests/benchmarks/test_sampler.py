"""The benchmark of the sampler runs through, and its ways agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import sampler

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def test_every_stage_is_measured_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "sampler.json"
    sizes = ["--side", "8", "--frames", "2", "--steps", "2", "--rounds", "1"]
    sampler.main(["--tiny", *sizes, "--json", str(told)])
    made = json.loads(told.read_text(encoding="utf-8"))
    plainly, whole, cached = made["sampling"]
    assert plainly["difference"] == 0
    assert 0 < whole["difference"] < 1e-4  # float32 sums in another order, carried through two steps
    assert cached["difference"] > whole["difference"]
    assert all(row["s/frame"] > 0 for stage in ("vae", "sampling", "ladder") for row in made[stage])
    assert [row["x plain"] for row in (plainly, made["ladder"][0])] == [1, 1]
    assert len(made["ladder"]) == 7
    assert len(made["vae"]) == 2 * 4
    printed = capsys.readouterr().out
    assert all(f"| {row['one step']} |" in printed for row in made["ladder"])
    assert printed.count("|---|") >= 3


def test_stages_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    told = tmp_path / "sampler.json"
    sizes = ["--side", "8", "--frames", "2", "--rounds", "1"]
    sampler.main(["--tiny", *sizes, "--stages", "vae", "--json", str(told)])
    assert set(json.loads(told.read_text(encoding="utf-8"))) == {"settings", "vae"}
