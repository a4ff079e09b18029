"""One real ComfyUI for the whole session, with this pack, untrained weights and the sample clip in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentsync.weights.catalog import FACE_LANDMARKER
from scripts.comfyui import PACK, REPOSITORY, ComfyUI
from scripts.sample_clip import Sample, make_sample
from tests.support.synthetic_models import write_models

BASE_NAME = "\u6d4b\u8bd5 ü x"
"""A user's folder may hold spaces and any script."""

PACKS = {
    PACK: REPOSITORY,
    "latentsync-demo-nodes": REPOSITORY / "scripts" / "demo_nodes",
    "latentsync-test-nodes": REPOSITORY / "tests" / "comfyui" / "narrow_nodes",
    "latentsync-test-video-helpers": REPOSITORY / "tests" / "comfyui" / "video_helper_nodes",
}
SHARED_LANDMARKER = REPOSITORY.parent / "shared" / "models" / "face_landmarker.task"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's base directory, with weights in it."""
    base = tmp_path_factory.mktemp("comfyui") / BASE_NAME
    write_models(base / "models")
    if SHARED_LANDMARKER.is_file():
        shutil.copyfile(SHARED_LANDMARKER, base / "models" / FACE_LANDMARKER.path)
    return base


@pytest.fixture(scope="session")
def sample(base: Path) -> Sample:
    """The sample clip: 2 s of video and 3 s of sound in ComfyUI's input folder, and its landmarks."""
    return make_sample(base / "input")


@pytest.fixture(scope="session")
def comfyui(base: Path, sample: Sample) -> Iterator[ComfyUI]:
    """The running server."""
    with ComfyUI(base, packs=PACKS) as server:
        yield server
