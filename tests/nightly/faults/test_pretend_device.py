"""Every mode of ComfyUI on the pretend device, and runs that are stopped in every stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pretend_device

ALLOCATIONS = 100


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pretend_device.Report]:
    made = pretend_device.reports(tmp_path_factory.mktemp("base"), list(pretend_device.MODES))
    return {report.mode: report for report in made}


@pytest.mark.parametrize("mode", pretend_device.MODES)
def test_pretend_device_mode_has_no_faults(reports: dict[str, pretend_device.Report], mode: str) -> None:
    assert reports[mode].faults() == [], reports[mode]


@pytest.mark.parametrize("stop", ["oom", "cancel"])
def test_pretend_device_every_stop_ends_well(tmp_path: Path, stop: str) -> None:
    """Smaller batches, the error, or cancelled: nothing stays on the device, and the next prompt runs."""
    pretend_device.prepare(tmp_path)
    assert pretend_device.child(tmp_path, "--child", stop, "--stops", str(ALLOCATIONS)) == "[]"
