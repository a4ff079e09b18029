"""What a user gets from the registry, and the environment that a user has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.comfyui import REPOSITORY, fetched_program
from scripts.compat import UV, make_environment

COMFY_CLI = "comfy-cli==1.23.0"


def run(*command: object, cwd: Path | None = None, home: Path | None = None) -> str:
    """What a command printed; raises AssertionError with it when the command failed.

    home: where it may leave what it wants to remember.
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
    """What a program of another package printed; it runs in an environment of its own, which uv keeps."""
    return run(
        UV, "tool", "run", "--quiet", "--python", sys.executable, "--from", package, *command, cwd=cwd, home=home
    )


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Git tracks here, as it stands, in a repository of its own."""
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs Git, and a checkout: what is packed is what Git tracks")
    folder = tmp_path_factory.mktemp("checkout") / "latentsync-nodes"
    for name in run("git", "-c", "safe.directory=*", "ls-files", "-z", cwd=REPOSITORY).split("\0"):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder for programs that write into it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def archive(checkout: Path, home: Path) -> Path:
    """What comfy-cli uploads to the registry and users get."""
    assert uv("--version")
    of_package(COMFY_CLI, "comfy", "--skip-prompt", "node", "pack", cwd=checkout, home=home)
    return (checkout / "node.zip").rename(checkout.with_name("node.zip"))


@pytest.fixture(scope="session")
def unpacked(archive: Path) -> Path:
    """The archive's content."""
    folder = archive.with_name("unpacked")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


@dataclass(frozen=True)
class UserEnvironment:
    """ComfyUI's own environment, as a user has it: torch and ComfyUI's requirements, nothing of ours."""

    python: Path

    def packages(self) -> dict[str, str]:
        lines = uv("pip", "freeze", "--python", self.python).splitlines()
        return dict(line.split("==") for line in lines if "==" in line)

    def install(self, requirements: Path) -> dict[str, str]:
        """Install a pack's requirements; returns the packages that this added or changed, with their versions."""
        before = self.packages()
        uv("pip", "install", "--quiet", "--python", self.python, "-r", requirements)
        return dict(self.packages().items() - before.items())


@pytest.fixture
def user_environment(tmp_path: Path) -> UserEnvironment:
    """One that nobody has installed into; uv links its packages out of its cache."""
    uv("--version")
    return UserEnvironment(make_environment(tmp_path / "venv", [fetched_program() / "requirements.txt"]))
