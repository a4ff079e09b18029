"""`convert`: write an official UNet file as safetensors of half the size."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ..progress import run_with_progress
from ..weights.catalog import MODELS


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    parser = add("convert", help="convert a UNet file to a safetensors file of half the size, which loads faster")
    parser.set_defaults(command=convert)
    parser.add_argument("file", type=Path, metavar="FILE", help="a LatentSync UNet, such as latentsync_unet.pt")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the file to write. The default is a .safetensors file beside FILE",
    )
    parser.add_argument(
        "--precision", choices=("fp16", "bf16"), default="fp16", help="precision of the written weights"
    )
    parser.add_argument(
        "--version", choices=sorted(MODELS), help="version of the weights. An unofficial file needs this flag"
    )


def convert(options: argparse.Namespace) -> None:
    """Convert, and print the name of the file."""
    from ..weights import convert as conversion

    source: Path = options.file
    target: Path = options.output or source.with_suffix(".safetensors")
    version = run_with_progress(conversion.convert(source, target, options.precision, options.version))
    sys.stdout.write(f"{target}: {version}, {options.precision}, {target.stat().st_size / 1e6:,.0f} MB\n")
