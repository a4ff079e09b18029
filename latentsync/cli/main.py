"""The command line: `python -m latentsync run VIDEO AUDIO -o OUT`.

Exit status: 0 for success, 1 for a failed or canceled run, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from io import TextIOWrapper

from .. import __version__
from ..errors import LatentSyncError, UsageError
from . import batch, bench, convert, doctor, download, faces, run, score
from .failure import error_of
from .options import HelpText

COMMANDS = (run, batch, faces, score, download, convert, doctor, bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. An error is one message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except UsageError as error:
        return _fail(error, 2)
    except (LatentSyncError, RuntimeError, MemoryError, OSError) as error:
        known = error_of(error)
        if known is None:
            raise
        return _fail(known, 1)
    except KeyboardInterrupt:
        return _fail("Cancelled.", 1)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latentsync", description="Lip-sync a video of someone talking to a new recording."
    )
    parser.add_argument("--version", action="version", version=f"LatentSync Nodes {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = partial(commands.add_parser, formatter_class=HelpText)
    for command in COMMANDS:
        command.add_parser(add)
    return parser


def _fail(error: object, status: int) -> int:
    sys.stderr.write(f"latentsync: {error}\n")
    return status


def run_process() -> None:
    """Run the command line as a process: set up its streams and signals, and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # escape characters that the stream's encoding lacks
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up on SIGTERM as on Ctrl-C
    sys.exit(main())
