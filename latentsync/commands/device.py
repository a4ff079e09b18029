"""The device that the command line runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def chosen_device() -> torch.device:
    """The accelerator, if there is one and it works."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def card_bytes(device: torch.device) -> int | None:
    """The memory of a card; None for a CPU, and for a device that does not tell."""
    import torch

    if device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    told = getattr(module, "mem_get_info", None)
    return int(told(device)[1]) if told is not None else None
