"""Installing the requirements into a ComfyUI environment adds packages and changes none."""

from __future__ import annotations

import pytest

from scripts.comfyui import REPOSITORY, installed_program
from tests.support.registry import UserEnvironment, uv


@pytest.mark.slow
def test_requirements_change_no_installed_package(user_environment: UserEnvironment) -> None:
    before = user_environment.packages()
    added = user_environment.install(REPOSITORY / "requirements.txt")
    print(f"{installed_program().name}: {len(before)} packages; added {added}")
    after = user_environment.packages()
    assert {name: after.get(name) for name in before} == before
    uv("pip", "check", "--python", user_environment.python)
    assert {"diffusers", "mediapipe", "openai-whisper"} <= after.keys()
