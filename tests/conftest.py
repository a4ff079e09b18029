"""Fixtures that several test folders use."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.weights import miniature
from latentsync.weights.catalog import FACE_LANDMARKER
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample, make_sample
from tests.support import partner_apis
from tests.support.comfyui_server import PACKS, RESOLUTION, SAMPLE_SECONDS
from tests.support.partner_apis import Partner
from tests.support.paths import SHARED
from tests.support.scene import Scene
from tests.support.stand_in_networks import StandInUNet, StandInVAE, StandInWhisper
from tests.support.synthetic_models import write_models

BASE_NAME = "\u6d4b\u8bd5 ü x"
"""The folder of the tests' ComfyUI has a space and letters of several scripts in its name."""

CLIP_SECONDS = 0.6


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C interrupt the processes that tests start: a shell tells its background jobs to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A test has no deadline, because the machine can be busy. By default, each run tries the same examples.
    hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
    hypothesis.settings.register_profile("random", deadline=None)
    hypothesis.settings.load_profile(config.getoption("hypothesis_profile", None) or "repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real footage, MediaPipe's model and recorded results of the official code."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED.name}/ (real footage and recorded results) beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def detector(shared: Path) -> Iterator[MediaPipeDetector]:
    """MediaPipe's detector, opened once."""
    with MediaPipeDetector(shared / "models/face_landmarker.task") as opened:
        yield opened


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A valid clip of 15 frames with its recording and its landmarks."""
    return make_sample(tmp_path_factory.mktemp("good"), seconds=CLIP_SECONDS)


@pytest.fixture(scope="session")
def whole_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete models folder with untrained weights."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder, resolution=RESOLUTION)
    return folder


@pytest.fixture
def stand_in_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, `--miniature` uses networks that need almost no time. All other parts are real."""
    monkeypatch.setattr(miniature, "unet", StandInUNet)
    monkeypatch.setattr(miniature, "vae", StandInVAE)
    monkeypatch.setattr(miniature, "whisper", StandInWhisper)


@pytest.fixture
def scene(tmp_path: Path, good: Sample, whole_models: Path) -> Scene:
    """An empty folder with valid inputs at hand, for one attack."""
    return Scene(tmp_path, good, whole_models)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base directory of the tests' ComfyUI, with untrained weights in it."""
    base = tmp_path_factory.mktemp("comfyui") / BASE_NAME
    write_models(base / "models", resolution=RESOLUTION)
    landmarker = SHARED / "models" / "face_landmarker.task"
    if landmarker.is_file():
        shutil.copyfile(landmarker, base / "models" / FACE_LANDMARKER.path)
    return base


@pytest.fixture(scope="session")
def sample(base: Path) -> Sample:
    """The sample clip in ComfyUI's input folder: 17 frames, one second of audio and the landmarks."""
    return make_sample(base / "input", SAMPLE_SECONDS)


@pytest.fixture(scope="session")
def partner(sample: Sample) -> Iterator[Partner]:
    """The services behind ComfyUI's partner nodes. Their voice speaks the recording of the sample."""
    with partner_apis.serving(sample.audio.read_bytes()) as services:
        yield services


@pytest.fixture(scope="session")
def comfyui(base: Path, partner: Partner) -> Iterator[ComfyUI]:
    """One running ComfyUI for the whole session, with this pack in it."""
    with ComfyUI(base, packs=PACKS, arguments=["--comfy-api-base", partner.url]) as server:
        yield server
