"""The lips of the miniature model follow the sound, by every route and setting. Other lags and stillness are seen."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync import VideoFile
from latentsync.audio.features import AudioSettings
from latentsync.cli.main import main
from latentsync.faces import alignment
from latentsync.output.result import LipSyncResult
from latentsync.weights import miniature
from scripts.comfyui import ComfyUI
from scripts.sample_clip import make_sample, write_audio
from tests.lip_sync import CASES, MIN_CORRELATION, SECONDS, Stage, passes
from tests.support import graphs
from tests.support.comfyui_server import PACKS
from tests.support.talking import QUICK, level, mono, shifted_windows, sync, talk, voice

LIPS_PX = 12  # of the crop's rows, around the middle of the mouth


@pytest.fixture(scope="module")
def stage(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The model, the meter and the clips. Needs MediaPipe's model."""
    return Stage(tmp_path_factory.mktemp("talking"))


@pytest.mark.parametrize("name", CASES)
def test_lips_follow_the_sound(stage: Stage, name: str) -> None:
    seen = CASES[name].run(stage)
    assert passes(CASES[name], seen), seen


def test_shifted_windows_are_seen(stage: Stage) -> None:
    with shifted_windows(1):
        seen = CASES["25 fps"].run(stage)
    assert not passes(CASES["25 fps"], seen), seen


def test_lips_follow_on_the_command_line(stage: Stage, tmp_path: Path) -> None:
    sample, output = make_sample(tmp_path, seconds=SECONDS), tmp_path / "out.mp4"
    arguments = ["run", sample.video, sample.audio, "-o", output, "--miniature", "--steps", 10]
    assert main([*map(str, arguments), "--face-landmarks", str(sample.landmarks)]) == 0
    assert_follows(stage, output)


@pytest.fixture
def miniature_comfyui(tmp_path: Path) -> Iterator[ComfyUI]:
    base = tmp_path / "comfyui"
    miniature.write_models(base / "models")
    make_sample(base / "input", seconds=SECONDS)
    with ComfyUI(base, packs=PACKS) as server:
        yield server


def test_lips_follow_in_comfyui(stage: Stage, miniature_comfyui: ComfyUI) -> None:
    graph = graphs.with_landmarks(graphs.load("lipsync_video"), "latentsync_sample.json")
    graph = graphs.changed(graph, "LatentSyncSampler", steps=10)
    outputs = miniature_comfyui.outputs(miniature_comfyui.run(graph))
    (video,) = [path for path in outputs if path.suffix == ".mp4"]
    assert_follows(stage, video)


def assert_follows(stage: Stage, output: Path) -> None:
    """The finished file: its frames against the sound that went in."""
    video, sound = VideoFile(output), voice(SECONDS)
    openings = stage.meter.openings(video.read(range(video.frame_count)))
    seen = sync(openings, level(mono(sound), sound.rate, video.frame_count, Fraction(video.rate)))
    assert seen.lag == 0 and seen.correlation > MIN_CORRELATION, seen
