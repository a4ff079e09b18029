"""The library on the pretend device, stopped at a hundred allocations of a whole run."""

from __future__ import annotations

import pytest

from tests.support import pretend_device
from tests.support.stopped_runs import ENDS, stopped_runs

ALLOCATIONS = 100


@pytest.mark.parametrize("kind", ENDS)
def test_pretend_pipeline_every_stop_ends_well(kind: str) -> None:
    """Nothing stays on the device, no thread is left, and the next run gives the same frames."""
    device = pretend_device.install()
    with device.counting(is_available=True):
        stops = stopped_runs(device, kind, ALLOCATIONS)
    assert stops.faults == []
    assert stops.ends.total() == ALLOCATIONS
    assert stops.ends.keys() <= ENDS[kind], stops
