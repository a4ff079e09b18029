"""ComfyUI on the pretend device, in its default mode. tests/nightly runs the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import pretend_device


@pytest.mark.slow
def test_pretend_device_default_mode_has_no_faults(tmp_path: Path) -> None:
    (report,) = pretend_device.reports(tmp_path, ["default"])
    assert report.faults() == [], report
