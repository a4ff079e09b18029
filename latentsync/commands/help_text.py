"""How `--help` tells what a flag stands at."""

from __future__ import annotations

import argparse

from typing_extensions import override


class HelpText(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults, of what has one: a flag that is off until it is given says so by being one."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)
