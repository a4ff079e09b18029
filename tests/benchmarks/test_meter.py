"""The meter sees what is held for a moment, and forgets it after."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.meter import Meter, in_turn

BYTES = 300_000_000
SLACK_BYTES = 50_000_000  # what else a process may come to hold meanwhile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def test_the_peak_is_that_of_the_work_alone() -> None:
    meter = Meter(torch.device("cpu"))
    large = meter.take(lambda: float(torch.ones(BYTES, dtype=torch.uint8)[-1]))
    small = meter.take(lambda: 7)
    assert (large.made, small.made) == (1, 7)
    assert large.peak_bytes == pytest.approx(BYTES, abs=SLACK_BYTES)
    assert small.peak_bytes < SLACK_BYTES
    assert large.seconds > small.seconds > 0


def test_ways_take_turns() -> None:
    order: list[str] = []
    taken = in_turn({name: lambda name=name: order.append(name) for name in "ab"}, Meter(torch.device("cpu")), rounds=2)
    assert order == ["a", "b", "a", "b"]
    assert {name: len(ones) for name, ones in taken.items()} == {"a": 2, "b": 2}
