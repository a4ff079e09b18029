"""The device and the precision of the command line."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch

from ..errors import DependencyError, UsageError, python_command
from ..weights import fp8

log = logging.getLogger(__name__)

PRECISIONS = {name: dtype for name, dtype in fp8.PRECISIONS.items() if dtype != fp8.FP8}  # fp8 needs ComfyUI

BROKEN_FP16 = ("1660", "1650", "1630", "T500", "T550", "T600", "MX550", "MX450", "CMP 30HX", "T2000", "T1000", "T1200")


def add_device_options(parser: argparse.ArgumentParser, *, precision: bool = True) -> None:
    """Add the flags for the device and, if `precision` is true, for the precision of the networks."""
    group = parser.add_argument_group("device")
    group.add_argument(
        "--device", metavar="NAME", help="such as cuda:1, mps or cpu. The default is the accelerator that torch finds"
    )
    if precision:
        group.add_argument(
            "--precision",
            choices=("auto", *PRECISIONS),
            default="auto",
            help="precision of the UNet and the VAE. auto: fp32 on a CPU and where fp16 is unreliable, otherwise fp16",
        )


def chosen_device(name: str | None = None) -> torch.device:
    """The named device. Without a name, the accelerator if torch finds one, or else the CPU.

    Raises:
        DependencyError: torch is older than 2.6, which has no API for accelerators.
        UsageError: this torch cannot use the named device.
    """
    if name is not None:
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f'"--device" cannot be {name} on this machine ({reason}). Use cpu, or leave the option out.'
            ) from error
    if not hasattr(torch, "accelerator"):
        raise DependencyError(
            f"torch {torch.__version__} is too old for this command. "
            f"Run {python_command('pip install --upgrade torch')} to get 2.6 or newer, or set --device."
        )
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def chosen_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of a precision. `auto` follows ComfyUI's rule for a UNet.

    NVIDIA GPUs like the GTX 16 series produce NaN in fp16, and GPUs before Volta compute fp16 slowly. They use fp32.
    """
    if precision != "auto":
        return PRECISIONS[precision]
    dtype = torch.float32
    if device.type != "cpu":
        backend = torch.get_device_module(device)
        properties: Any = backend.get_device_properties(device) if hasattr(backend, "get_device_properties") else None
        is_slow = torch.version.hip is None and getattr(properties, "major", 9) < 7
        name: str = getattr(properties, "name", "")
        is_broken = any(broken in name for broken in BROKEN_FP16)
        dtype = torch.float32 if is_slow or is_broken else torch.float16
    log.info("Running on %s in %s", device, dtype)
    return dtype
