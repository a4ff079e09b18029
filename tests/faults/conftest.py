"""A whole clip and a whole models folder, for attacks that break one thing each."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.sample_clip import Sample, make_sample
from tests.faults.cases import Scene
from tests.support.synthetic_models import write_models

CLIP_SECONDS = 0.6


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("good"), seconds=CLIP_SECONDS)


@pytest.fixture(scope="session")
def whole_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def scene(tmp_path: Path, good: Sample, whole_models: Path) -> Scene:
    return Scene(tmp_path, good, whole_models)
