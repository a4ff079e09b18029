"""ComfyUI on the pretend device, in its default mode. tests/nightly runs the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pretend_device


@pytest.mark.slow
def test_pretend_device_default_mode_has_no_faults(tmp_path: Path) -> None:
    (report,) = pretend_device.reports(tmp_path, ["default"])
    assert report.faults() == [], report


@pytest.mark.slow
def test_pretend_device_names_the_line_of_a_planted_fault(tmp_path: Path) -> None:
    pretend_device.prepare(tmp_path)
    found = pretend_device.child(tmp_path, "--child", "plant")
    assert found.startswith("latentsync/models/layers.py:")
    assert "at least two devices, npu:0 and cpu" in found
