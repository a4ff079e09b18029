"""Every mode of ComfyUI on the pretend device, and runs of a server that are stopped in every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pretend_device
from tests.support import pretend_server

STOPS = 100


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pretend_device.Report]:
    made = pretend_device.reports(tmp_path_factory.mktemp("base"), list(pretend_device.MODES))
    return {report.mode: report for report in made}


@pytest.mark.parametrize("mode", pretend_device.MODES)
def test_pretend_device_mode_has_no_faults(reports: dict[str, pretend_device.Report], mode: str) -> None:
    assert reports[mode].faults() == [], reports[mode]


@pytest.mark.parametrize("kind", pretend_server.ENDS)
def test_pretend_server_every_stop_ends_well(tmp_path: Path, shared: Path, kind: str) -> None:
    """All nodes in one server: no bytes stay on the device, and the next prompt has the same result."""
    pretend_server.prepare(tmp_path)
    with pretend_server.PretendServer(tmp_path) as server:
        stops = list(pretend_server.stopped_runs(server, kind, STOPS))
    assert len(stops) == STOPS
    assert [fault for _, faults in stops for fault in faults] == []


def test_pretend_device_names_the_line_of_a_planted_fault(tmp_path: Path) -> None:
    pretend_device.prepare(tmp_path)
    found = pretend_device.child(tmp_path, "--child", "plant")
    assert found.startswith("latentsync/models/layers.py:")
    assert "at least two devices, npu:0 and cpu" in found
