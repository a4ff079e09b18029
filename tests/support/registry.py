"""Programs that the registry and users run: uv, comfy-cli, and a user's own environment."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.compat import UV

COMFY_CLI = "comfy-cli==1.23.0"


def run(*command: object, cwd: Path | None = None, home: Path | None = None) -> str:
    """The output of a command; raises AssertionError with it if the command fails.

    home: home folder of the command.
    """
    quiet = {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    own = {"HOME": str(home), "UV_CACHE_DIR": uv_cache()} if home else {}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=os.environ | quiet | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def uv(*arguments: object) -> str:
    if not UV.exists():
        pytest.skip("needs uv beside this Python, where `make venv` puts it")
    return run(UV, *arguments)


def uv_cache() -> str:
    return uv("cache", "dir").strip()


def of_package(package: str, *command: object, cwd: Path, home: Path) -> str:
    """The output of a program of another package, in an environment that uv keeps."""
    return run(
        UV, "tool", "run", "--quiet", "--python", sys.executable, "--from", package, *command, cwd=cwd, home=home
    )


@dataclass(frozen=True)
class UserEnvironment:
    """The environment of a ComfyUI user: torch and ComfyUI's requirements."""

    python: Path

    def packages(self) -> dict[str, str]:
        lines = uv("pip", "freeze", "--python", self.python).splitlines()
        return dict(line.split("==") for line in lines if "==" in line)

    def install(self, requirements: Path) -> dict[str, str]:
        """Install the requirements of a pack; returns the added or changed packages with their versions."""
        before = self.packages()
        uv("pip", "install", "--quiet", "--python", self.python, "-r", requirements)
        return dict(self.packages().items() - before.items())
