"""Test with other versions of the libraries: one line for each.

Usage: python -m scripts.compat_libraries [NAME ...]

`oldest-3.10` has the oldest versions that pyproject.toml allows, and `newest-3.10` to `newest-3.14` the newest, each in
an environment of its own with this Python. PACKAGE==VERSION is installed alone, in front of the packages of this
environment, and runs the media tests. Everything is in `.compat/`, and `.compat/NAME.log` has the output of pytest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.comfyui import REPOSITORY
from scripts.compat import FOLDER, CompatError, uv

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
PYAV_VERSIONS = ("16.0.1", "16.1.0", "17.0.1", "17.1.0", "18.0.0", "18.1.0")
DEFAULTS = (
    *(f"av=={version}" for version in PYAV_VERSIONS),
    f"oldest-{PYTHONS[0]}",
    *(f"newest-{python}" for python in PYTHONS),
)
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}
MEDIA_TESTS = ("tests/unit/video", "tests/unit/audio", "tests/unit/output")
TESTS = (
    *MEDIA_TESTS,
    *(f"tests/unit/{folder}" for folder in ("compositing", "faces", "models", "sampling", "weights")),
    "tests/parity",
    "tests/e2e/test_cli_run.py",
)
TEST_PACKAGES = ("hypothesis", "jsonschema", "pytest", "requests", "scikit-image", "websocket-client")
OLD_BUILDS = "setuptools<81\n"  # the oldest openai-whisper is built with pkg_resources


def main() -> int:
    parser = argparse.ArgumentParser(description="Test with other versions of the libraries.")
    parser.add_argument("names", nargs="*", default=DEFAULTS, metavar="NAME", help=f"of {', '.join(DEFAULTS)}")
    good, names = True, parser.parse_args().names
    if unknown := [name for name in names if "==" not in name and name not in DEFAULTS]:
        parser.error(f"unknown: {', '.join(unknown)}. Use PACKAGE==VERSION, or one of {', '.join(DEFAULTS)}.")
    for name in names:
        started = time.monotonic()
        try:
            passed, result = in_front(name) if "==" in name else in_environment(*name.split("-"))
        except CompatError as error:
            passed, result = False, str(error)
        good = good and passed
        print(
            f"{name:14} {'ok    ' if passed else 'FAILED'}   {time.monotonic() - started:6.1f} s   {result}", flush=True
        )
    return 0 if good else 1


def in_front(package: str) -> tuple[bool, str]:
    """Whether the media tests pass with a package of this version, and the last line of pytest."""
    folder = FOLDER / package.replace("==", "-")
    uv("pip", "install", "--python", sys.executable, "--no-deps", "--target", folder, package)
    return run_tests(folder.name, Path(sys.executable), MEDIA_TESTS, {"PYTHONPATH": str(folder)})


def in_environment(age: str, version: str) -> tuple[bool, str]:
    """Whether the tests pass with the oldest or newest libraries on a Python, their versions, and pytest's last line.

    Raises:
        CompatError: this Python is not installed, or the libraries cannot be installed.
    """
    folder, builds = FOLDER / f"{age}-{version}", FOLDER / "builds.txt"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    FOLDER.mkdir(exist_ok=True)
    builds.write_text(OLD_BUILDS, encoding="utf-8")
    if not python.exists():
        uv("venv", "--no-python-downloads", "--python", version, folder)
    how = ("--upgrade", "--resolution", RESOLUTIONS[age], "--build-constraint", builds)
    uv("pip", "install", "--python", python, *how, "--extra", "standalone", "-r", REPOSITORY / "pyproject.toml")
    uv("pip", "install", "--python", python, *TEST_PACKAGES)
    passed, result = run_tests(folder.name, python, TESTS, {})
    return passed, f"{result}   {', '.join(versions(python))}"


def versions(python: Path) -> list[str]:
    """The versions of the required libraries in an environment."""
    code = (
        "import importlib.metadata as m\n"
        "for name in ('av', 'diffusers', 'huggingface_hub', 'mediapipe', 'numpy', 'openai-whisper', 'torch'):\n"
        "    print(name, m.version(name))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()


def run_tests(name: str, python: Path, tests: Sequence[str], environment: dict[str, str]) -> tuple[bool, str]:
    """Whether tests pass, and the last line of pytest."""
    command = [python, "-m", "pytest", *tests, "-q", "--tb=line", "-p", "no:cacheprovider"]
    environment = {**os.environ, **environment, "OMP_NUM_THREADS": "1"}
    log = FOLDER / f"{name}.log"
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    lines = (log.read_text(encoding="utf-8").strip() or "pytest printed nothing").splitlines()
    return done.returncode == 0, lines[-1]


if __name__ == "__main__":
    sys.exit(main())
