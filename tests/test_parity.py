"""Every recorded result of the official implementation, within the tolerance that the runner gives its reason for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import parity

GOLDEN = Path(__file__).parent / "golden"
SLOW_KINDS = {"pipeline"}


def cases() -> list[object]:
    found: list[object] = []
    for path in sorted(GOLDEN.glob("*.npz")):
        with np.load(path) as arrays:
            if "meta" in arrays:
                for case in json.loads(str(arrays["meta"])):
                    marks = [pytest.mark.slow] if case["kind"] in SLOW_KINDS else []
                    found.append(pytest.param(path, case, id=f"{path.stem}/{case['name']}", marks=marks))
    return found


@pytest.mark.parametrize(("path", "case"), cases())
def test_case(path: Path, case: parity.Case) -> None:
    with np.load(path) as arrays:
        errors = parity.KINDS[case["kind"]](case, arrays)
    assert all(error.holds for error in errors), ", ".join(map(str, errors))


@pytest.mark.parametrize("resolution", [256, 512])
def test_mask(resolution: int) -> None:
    ((_, errors),) = parity.check(GOLDEN / f"mask_{resolution}.npz")
    assert all(error.holds for error in errors), ", ".join(map(str, errors))


def test_runner_fails_when_a_case_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = GOLDEN / "mask_256.npz", tmp_path / "bad.npz"
    with np.load(good) as arrays:
        np.savez(bad, keep=1 - arrays["keep"])
    assert parity.main([str(good)]) == 0
    assert parity.main([str(good), str(bad)]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ok", "ok", "FAIL"]
