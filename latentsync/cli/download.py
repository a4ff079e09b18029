"""`download`: download the model files of a version."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..progress import run_with_progress
from ..weights import locate
from ..weights.catalog import EXTRAS, MODELS
from . import options


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    parser = add("download", help="download and verify the model files of a version or of an option")
    parser.set_defaults(command=download)
    parser.add_argument(
        "version",
        choices=[*sorted(MODELS), *EXTRAS],
        help="a model version: 1.6 (512 pixels) or 1.5 (256 pixels). syncnet is the network of the command score, for "
        "research use (CC-BY). occlusion is the segmenter of --occlusion auto (16 MB)",
    )
    options.add_models_folder(parser)


def download(options: argparse.Namespace) -> None:
    """Download the missing files of a version or of an optional network, and verify the other files."""
    from ..weights.download import download_files

    folders = locate.folders_in(options.models)
    extra = EXTRAS.get(options.version)
    files = locate.required_files(options.version) if extra is None else (extra, locate.FACE_LANDMARKER)
    paths = locate.find_all(files, folders)
    for file, path in paths.items():
        run_with_progress(locate.verify(file, path))
    run_with_progress(download_files([file for file in files if file not in paths], folders))
    if extra is None:
        locate.locate(folders, options.version)
        locate.require(locate.FACE_LANDMARKER, folders)
    for file in files:
        path = paths.get(file) or locate.destination(file, folders)
        sys.stdout.write(f"{path} ({file.license})\n")
