"""`convert`: an official UNet file as half-size safetensors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ..progress import run_with_progress
from ..weights.catalog import MODELS


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    job = add("convert", help="write a UNet file as safetensors: half the disk, loaded by mapping")
    job.set_defaults(command=convert)
    job.add_argument("file", type=Path, help="a LatentSync UNet, latentsync_unet.pt")
    job.add_argument("-o", "--output", type=Path, help="the file to write; otherwise beside it, as .safetensors")
    job.add_argument("--precision", choices=("fp16", "bf16"), default="fp16", help="of the written weights")
    job.add_argument("--version", choices=sorted(MODELS), help="of the weights; needed for an unofficial file")


def convert(options: argparse.Namespace) -> None:
    """Convert, and print the name of the file."""
    from ..weights import convert as conversion

    source: Path = options.file
    target: Path = options.output or source.with_suffix(".safetensors")
    version = run_with_progress(conversion.convert(source, target, options.precision, options.version))
    sys.stdout.write(f"{target}: {version}, {options.precision}, {target.stat().st_size / 1e6:,.0f} MB\n")
