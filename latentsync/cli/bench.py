"""`bench`: measure the speed and the VRAM of the device."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from ..fileio import atomic_write
from .device import add_device_options, chosen_device

DEFAULT_MINUTES = 10.0


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    parser = add("bench", help="measure the speed and the VRAM of the device, without weights")
    parser.set_defaults(command=bench)
    add_device_options(parser, precision=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    parser.add_argument("--quick", action="store_true", help="measure only one window of 16 frames in fp16")
    parser.add_argument(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        metavar="COUNT",
        help="start no measurement that would probably end later. The most useful measurements come first",
    )
    parser.add_argument("--profile", action="store_true", help="add a profile of one step of each version in fp16")
    parser.add_argument("--tiny", action="store_true", help="use tiny networks and few steps, to test the command")


def bench(args: argparse.Namespace) -> None:
    """Print the results as a Markdown table. Progress goes to stderr."""
    from .. import bench as engine
    from ..weights.catalog import MODELS

    device = chosen_device(args.device)
    if device.type == "cpu" and args.device is None and not args.tiny:
        raise UsageError(
            "torch finds no accelerator, and the full-size networks take hours on a CPU. "
            'Use "--tiny" to test the command, or "--device cpu" to measure the CPU.'
        )
    machine = engine.describe_machine(device)
    report: dict[str, object] = {"machine": machine}
    rows: list[engine.Row] = []
    for row in engine.run_cases(engine.list_cases(quick=args.quick), device, tiny=args.tiny, minutes=args.minutes):
        rows.append(row)
        if not row.is_skipped:
            result = row.note if row.total is None else f"{row.total:.3g} s per second of video"
            sys.stderr.write(f"{row.case}: {result}\n")
    report["rows"] = [row.to_json() for row in rows]
    table = engine.markdown(machine, rows, tiny=args.tiny)
    if args.profile:
        report["profile"] = {name: engine.profile_step("fp16", name, device, tiny=args.tiny) for name in MODELS}
        table += "".join(f"\nOne step of {name}:\n\n```\n{text}\n```\n" for name, text in report["profile"].items())
    if args.json is not None:
        atomic_write(args.json, (json.dumps(report, indent=1) + "\n").encode())
    sys.stdout.write(table)
