"""Run the media tests with other versions of the libraries that read and write media: one line per version.

Usage: python -m scripts.compat_media [PACKAGE==VERSION ...]

Each version is installed alone into `.compat/`, in front of this environment's packages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from scripts.comfyui import REPOSITORY
from scripts.compat import FOLDER, CompatError, uv

PYAV_VERSIONS = ("16.0.1", "16.1.0", "17.0.1", "17.1.0", "18.0.0", "18.1.0")
DEFAULTS = tuple(f"av=={version}" for version in PYAV_VERSIONS)
TESTS = ("tests/unit/video", "tests/unit/audio/test_reader.py", "tests/unit/output")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the media tests with other versions of libraries.")
    parser.add_argument("packages", nargs="*", default=DEFAULTS, metavar="PACKAGE==VERSION")
    good = True
    for package in parser.parse_args().packages:
        started = time.monotonic()
        try:
            passed, result = run_tests(package)
        except CompatError as error:
            passed, result = False, str(error)
        good = good and passed
        print(
            f"{package:28} {'ok    ' if passed else 'FAILED'}   {time.monotonic() - started:5.1f} s   {result}",
            flush=True,
        )
    return 0 if good else 1


def run_tests(package: str) -> tuple[bool, str]:
    """Whether the media tests pass with a package of this version, and the last line of pytest."""
    folder = FOLDER / package.replace("==", "-")
    if not folder.exists():
        uv("pip", "install", "--python", sys.executable, "--no-deps", "--target", folder, package)
    command = [sys.executable, "-m", "pytest", *TESTS, "-q", "--tb=line", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout.strip().splitlines() or ["pytest printed nothing"])[-1]


if __name__ == "__main__":
    sys.exit(main())
