"""C++ code's logs stay out of the console, and Python's stderr does not."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import REPOSITORY

PROGRAM = """
import os, sys
from latentsync.cli.console import native_logs_hidden

try:
    with native_logs_hidden():
        os.write(2, b"native inside\\n")
        print("bar", file=sys.stderr)
        raise ValueError
except ValueError:
    os.write(2, b"native after\\n")
    print("error", file=sys.stderr)
"""


def test_console_hides_native_logs_only_inside() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, check=True)
    assert done.stderr.decode().splitlines() == ["bar", "native after", "error"]
