"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from typing_extensions import override


class HelpText(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults, of what has one: a flag that is off until it is given says so by being one."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


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
