"""Control of console output."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

STDERR = 2


@contextmanager
def native_logs_hidden() -> Generator[None]:
    """Hide the stderr output of C++ code. MediaPipe and LiteRT write logs there, and no setting prevents these logs.

    Python's own stderr, with progress bars and errors, stays visible.
    """
    original = sys.stderr
    try:
        is_console = original.fileno() == STDERR
    except (OSError, ValueError, AttributeError):
        is_console = False
    if not is_console:  # a test has replaced it
        yield
        return
    original.flush()
    duplicate = os.dup(STDERR)
    with (
        os.fdopen(duplicate, "w", encoding=original.encoding, errors="backslashreplace", buffering=1) as console,
        Path(os.devnull).open("wb") as nothing,
    ):
        os.dup2(nothing.fileno(), STDERR)
        sys.stderr = console
        try:
            yield
        finally:
            sys.stderr = original
            console.flush()
            os.dup2(duplicate, STDERR)
