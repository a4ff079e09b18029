"""The device that the command line runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DependencyError

if TYPE_CHECKING:
    import torch


def chosen_device() -> torch.device:
    """The accelerator, if there is one and it works.

    Raises:
        DependencyError: torch is older than 2.6, and does not know what an accelerator is.
    """
    import torch

    if not hasattr(torch, "accelerator"):
        raise DependencyError(f"torch {torch.__version__} is too old: the command line needs torch 2.6 or newer")
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
