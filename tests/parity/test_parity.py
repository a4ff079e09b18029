"""Every recorded result of the official code, within the tolerance that each check gives a reason for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.parity import checks
from tests.parity.__main__ import main
from tests.support.paths import GOLDEN

SLOW = {"pipeline/plain", "denoise/steps20_g1.5", "syncnet/later", "syncnet/stable"}
"""`make check` leaves these out. Each has a shorter sibling, except for StableSyncNet, which needs 1.6 GB."""


def cases() -> list[object]:
    found: list[object] = []
    for path in sorted(GOLDEN.glob("*.npz")):
        with np.load(path) as arrays:
            if "meta" in arrays:
                for case in json.loads(str(arrays["meta"])):
                    name = f"{path.stem}/{case['name']}"
                    found.append(pytest.param(path, case, id=name, marks=[pytest.mark.slow] if name in SLOW else []))
    return found


@pytest.mark.parametrize(("path", "case"), cases())
def test_parity_case_is_within_tolerance(path: Path, case: checks.Case) -> None:
    if case["kind"] not in checks.KINDS:
        pytest.skip(f"no check for cases of kind {case['kind']}")
    with np.load(path) as arrays:
        errors = checks.KINDS[case["kind"]](case, arrays)
    assert all(error.holds for error in errors), ", ".join(map(str, errors))


@pytest.mark.parametrize("resolution", [256, 512])
def test_parity_mask_is_within_tolerance(resolution: int) -> None:
    ((_, errors),) = checks.check(GOLDEN / f"mask_{resolution}.npz")
    assert all(error.holds for error in errors), ", ".join(map(str, errors))


def test_parity_runner_fails_when_a_case_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = GOLDEN / "mask_256.npz", tmp_path / "bad.npz"
    with np.load(good) as arrays:
        np.savez(bad, keep=1 - arrays["keep"])
    assert main([str(good)]) == 0
    assert main([str(good), str(bad)]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok", "ok", "FAIL"]


def test_parity_runner_skips_unknown_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "later.npz"
    np.savez(path, meta=json.dumps([{"name": "short", "kind": "no kind"}]))
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == "skip later/short: no check for cases of kind no kind\n"
