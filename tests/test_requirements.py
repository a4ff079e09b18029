"""Installing the pack into a ComfyUI environment adds packages and changes none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.comfyui import fetched_program

REPOSITORY = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")  # ComfyUI names no version; the Makefile does


def uv(*arguments: object) -> str:
    done = subprocess.run([str(UV), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def frozen(python: Path) -> dict[str, str]:
    lines = uv("pip", "freeze", "--python", python).splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


@pytest.mark.slow
def test_requirements_add_packages_and_change_none(tmp_path: Path) -> None:
    if not UV.exists():
        pytest.skip("needs uv beside this Python, where `make venv` puts it")
    comfyui = fetched_program()
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    uv("pip", "install", "--quiet", "--python", python, *TORCH, "-r", comfyui / "requirements.txt")
    before = frozen(python)
    uv("pip", "install", "--quiet", "--python", python, "-r", REPOSITORY / "requirements.txt")
    after = frozen(python)
    added = sorted(after.keys() - before.keys())
    print(f"{comfyui.name}: {len(before)} packages; added " + ", ".join(f"{name} {after[name]}" for name in added))
    assert {name: after.get(name) for name in before} == before
    uv("pip", "check", "--python", python)
    assert {"diffusers", "mediapipe", "openai-whisper"} <= set(added)
