"""Seconds and peak memory of a piece of work, on whatever device it runs."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.loading import resident_bytes

Work = Callable[[], Any]


class Taken(NamedTuple):
    """The result of a piece of work, its seconds, and its peak memory."""

    result: Any
    seconds: float
    peak_bytes: int


class Meter:
    """Times work on a device; memory counts from what is in use when the meter is made.

    On a processor that is resident memory, as Linux counts it: pages that the allocator keeps for itself are given
    back before each count. On an accelerator it is what the allocator has given out.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = self._forget_peak()

    def take(self, work: Work) -> Taken:
        self._forget_peak()
        began = time.perf_counter()
        result = work()
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return Taken(result, time.perf_counter() - began, max(self._peak() - self._before, 0))

    def _forget_peak(self) -> int:
        """Begins to look for the peak anew; returns what is in use now."""
        if self.device.type == "cpu":
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM is what is resident now: see proc(5)
            return resident_bytes("VmRSS")
        torch.accelerator.synchronize(self.device)
        torch.accelerator.reset_peak_memory_stats(self.device)
        return torch.accelerator.memory_allocated(self.device)

    def _peak(self) -> int:
        if self.device.type == "cpu":
            return resident_bytes("VmHWM")
        return torch.accelerator.max_memory_allocated(self.device)


def in_turn(ways: dict[str, Work], meter: Meter, rounds: int) -> dict[str, list[Taken]]:
    """Every way once a round, so that the machine's moods meet all alike; what they make is let go."""
    taken: dict[str, list[Taken]] = {name: [] for name in ways}
    for done in range(rounds):
        for name, work in ways.items():
            taken[name].append(meter.take(work)._replace(result=None))
            sys.stderr.write(f"round {done + 1} of {rounds}, {name}: {taken[name][-1].seconds:.2f} s\n")
    return taken
