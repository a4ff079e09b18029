"""The models folder of the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[2] / "models"  # in the pack's own folder, for who works without ComfyUI
CACHE = Path("~/.cache/latentsync")


def add_flag(job: argparse.ArgumentParser) -> None:
    """Where weights are looked for, and fetched into."""
    job.add_argument(
        "--models",
        type=Path,
        default=BESIDE if BESIDE.is_dir() else CACHE.expanduser(),
        help="models folder, laid out as ComfyUI's (latentsync/, vae/)",
    )
