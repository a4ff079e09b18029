"""The torch version that the command line needs to choose a device."""

from __future__ import annotations

import pytest
import torch

from latentsync.cli.device import chosen_device
from latentsync.errors import DependencyError


def test_device_refuses_old_torch_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "accelerator")
    with pytest.raises(DependencyError, match=r"torch \d.* is too old for this command"):
        chosen_device()
