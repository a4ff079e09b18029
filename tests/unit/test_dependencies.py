"""A missing library stops only what needs it, with an error that says what to install."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from latentsync.audio import mel
from latentsync.errors import DependencyError, cannot_import
from latentsync.faces import warp
from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.faces.selfie_segmenter import SelfieSegmenter
from latentsync.models.clipseg import clipseg
from latentsync.progress import run
from latentsync.sampling import schedulers
from latentsync.weights import random_init
from latentsync.weights.catalog import WHISPER
from latentsync.weights.download import download_files
from latentsync.weights.locate import folders_in
from tests.support.paths import REPOSITORY

Remove = Callable[[str], None]


@pytest.fixture
def remove(monkeypatch: pytest.MonkeyPatch) -> Remove:
    """Makes a package behave as if it is not installed."""

    def removed(package: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)

    return removed


def download(folder: Path) -> None:
    run(download_files([WHISPER], folders_in(folder)))


@pytest.mark.parametrize(
    ("package", "use", "install"),
    [
        ("mediapipe", lambda folder: MediaPipeDetector(folder / "any.task"), "mediapipe>=0.10.32"),
        ("mediapipe", lambda folder: SelfieSegmenter(folder / "any.tflite"), "mediapipe>=0.10.32"),
        ("transformers", lambda _: clipseg({}), "transformers>=4.50.3"),
        ("cv2", lambda _: warp.opencv(), "opencv-contrib-python"),
        ("whisper", lambda _: random_init.whisper(), "openai-whisper>=20240930"),
        ("whisper", lambda _: list(mel.mel_power([torch.zeros(16000)])), "openai-whisper>=20240930"),
        ("diffusers", lambda _: random_init.vae(), "diffusers>=0.32"),
        ("diffusers", lambda _: schedulers.SCHEDULERS["uni_pc"](4), "diffusers>=0.32"),
        ("huggingface_hub", download, "huggingface_hub>=0.27"),
    ],
)
def test_missing_library_error_says_what_to_install(
    package: str, use: Callable[[Path], object], install: str, remove: Remove, tmp_path: Path
) -> None:
    remove(package)
    with pytest.raises(DependencyError, match=re.escape(f'"{sys.executable}" -m pip install "{install}"')):
        use(tmp_path)


def test_missing_system_library_error_names_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError("libGLESv2.so.2: cannot open shared object file: No such file or directory")

    with zipfile.ZipFile(tmp_path / "face_landmarker.task", "w") as archive:
        archive.writestr("face_detector.tflite", b"")
    monkeypatch.setattr(MediaPipeDetector, "_open_box_model", fail)
    with pytest.raises(DependencyError, match=r"MediaPipe needs a system library .*libGLESv2.* apt-get install libgl1"):
        MediaPipeDetector(tmp_path / "face_landmarker.task")


def test_broken_library_error_says_how_to_repair() -> None:
    error = cannot_import("OpenCV", "opencv-contrib-python", ImportError("compiled for another numpy"))
    assert str(error) == (
        "OpenCV is installed, but does not work (compiled for another numpy). To repair OpenCV, "
        f'run "{sys.executable}" -m pip install --force-reinstall --no-deps "opencv-contrib-python" and try again.'
    )


def test_ddim_runs_without_diffusers(remove: Remove) -> None:
    remove("diffusers")
    assert len(schedulers.SCHEDULERS["ddim"](4).timesteps) == 4


def test_named_versions_equal_requirements() -> None:
    required = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").split()
    told = {"av>=16", "mediapipe>=0.10.32", "openai-whisper>=20240930", "diffusers>=0.32", "huggingface_hub>=0.27"}
    assert set(required) == told
