"""The archive that users get from the registry, and the environment of a user."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from scripts.comfyui import REPOSITORY, installed_program
from scripts.compat import make_environment
from tests.support.registry import COMFY_CLI, UserEnvironment, of_package, run, uv


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files of this repository, in a repository of their own."""
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


@pytest.fixture
def user_environment(tmp_path: Path) -> UserEnvironment:
    """A new environment with torch and ComfyUI's requirements. uv links the packages from its cache."""
    uv("--version")
    return UserEnvironment(make_environment(tmp_path / "venv", [installed_program() / "requirements.txt"]))
