"""Write the reference part of docs/cli.md from the command line's own parser.

Usage: python -m scripts.cli_reference
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from latentsync.cli.main import _parser
from scripts.comfyui import REPOSITORY

PAGE = REPOSITORY / "docs" / "cli.md"
KINDS = {int: "whole number", float: "number", Path: "path"}
MARK = "<!-- Written by python -m scripts.cli_reference. Edit the help texts of the code, not this part. -->\n"


def main() -> None:
    written = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(written + MARK + reference(), encoding="utf-8")


def reference() -> str:
    """One section for each command, one table for each group of its flags."""
    summaries = {choice.dest: sentence(choice.help or "") for choice in _subparsers()._choices_actions}
    return "".join(
        f"\n## {name}\n\n{summaries[name]}\n{''.join(tables(parser))}" for name, parser in commands().items()
    )


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    return _subparsers().choices


def _subparsers() -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))


def tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if actions:
            title = (group.title or "").removeprefix("positional ").capitalize()
            rows = "".join(map(row, actions))
            yield f"\n| {title} | value | meaning | default |\n|---|---|---|---|\n{rows}"


def row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings or [action.dest.upper()])
    choices = "" if isinstance(action.choices, range) else ", ".join(map(str, action.choices or ()))
    metavar = action.metavar if action.option_strings else None
    value = "" if action.nargs == 0 else choices or metavar or KINDS.get(action.type, "text")
    return f"| {names} | {value} | {action.help} | {default(action)} |\n"


def default(action: argparse.Action) -> str:
    """The default as a user types it; none for paths, which depend on the machine."""
    value = action.default
    if value is None or value is False or value == "" or isinstance(value, Path):
        return ""
    return "on" if value is True else f"`{value}`"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


if __name__ == "__main__":
    main()
