"""`download`: fetch the weights of a version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from .. import hub
from ..weights.catalog import MODELS
from . import options
from .progress import run_with_progress


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    job = add("download", help="fetch the weights of a version")
    job.set_defaults(command=download)
    job.add_argument("version", choices=sorted(MODELS), help="model version: 1.6 (512 pixels) or 1.5 (256)")
    options.add_flag(job)


def download(options: argparse.Namespace) -> None:
    """Fetch what a version needs and is not there yet; what is there is checked."""
    from ..fetch import fetch

    folders = hub.folders_in(options.models)
    wanted = hub.files_of(options.version)
    found = run_with_progress(hub.find_all(wanted, folders))
    run_with_progress(fetch([file for file in wanted if file not in found], folders))
    run_with_progress(hub.locate(folders, options.version))
    hub.require(hub.FACE_LANDMARKER, folders)
    for file in wanted:
        place = found.get(file) or hub.destination(file, folders)
        sys.stdout.write(f"{place} ({file.licence})\n")
