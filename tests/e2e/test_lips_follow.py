"""The lips of the miniature model follow the sound, by every route and setting. Other lags and stillness are seen."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync import VideoFile, select_face
from latentsync.cli.main import main
from latentsync.output.result import LipSyncResult
from latentsync.weights import miniature
from scripts.comfyui import ComfyUI
from scripts.sample_clip import make_sample
from tests.lip_sync import CASES, SECONDS, Stage, passes
from tests.support import graphs
from tests.support.comfyui_server import PACKS
from tests.support.talking import QUICK, MouthMeter, level, mono, shifted_windows, side_by_side, sync, talk, voice

EXACT = {"num_inference_steps": 20, "cache_interval": 1}
ONE_WINDOW = 0.64  # seconds of a window
MAX_FAST_ERROR = 0.05  # of the opening, in distances of the eyes. A wide open mouth has about 0.2


@pytest.fixture(scope="module")
def stage(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The model, the meter and the clips. Needs MediaPipe's model."""
    with MouthMeter(shared / "models" / "face_landmarker.task") as meter:
        yield Stage(tmp_path_factory.mktemp("talking"), meter)


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
    assert passes(CASES["25 fps"], seen), seen


def test_silence_closes_the_mouth(stage: Stage) -> None:
    sound = voice(1.0).pad_or_trim(Fraction(2))
    frames, _ = talk(stage.pipeline, stage.track(), sound)
    openings = stage.meter.openings(frames)
    assert openings[30:].max() < 0.35 * openings[:25].max(), openings.round(2)


def test_guidance_opens_the_mouth_more(stage: Stage) -> None:
    widest = [
        np.quantile(stage.meter.openings(talk(stage.pipeline, stage.track(), voice(1.3), guidance_scale=scale)[0]), 0.9)
        for scale in (1.0, 1.5, 3.0)
    ]
    assert widest == sorted(widest), widest


@pytest.mark.parametrize(
    "settings",
    [{"cache_interval": 3}, {"scheduler": "dpmpp_2m", "num_inference_steps": 10}],
    ids=["deepcache", "dpmpp"],
)
def test_faster_settings_stay_close(stage: Stage, settings: dict[str, object]) -> None:
    exact = stage.meter.openings(talk(stage.pipeline, stage.track(), voice(ONE_WINDOW), **EXACT)[0])
    fast = stage.meter.openings(talk(stage.pipeline, stage.track(), voice(ONE_WINDOW), **(EXACT | settings))[0])
    assert np.abs(exact - fast).max() < MAX_FAST_ERROR, (exact.round(2), fast.round(2))


def test_two_speakers_follow_their_own_voices(stage: Stage, tmp_path: Path) -> None:
    track, first, second = stage.track(), voice(2.0), voice(1.3, lead=0.7)
    pair = side_by_side(track, tmp_path)
    tracks = [select_face(pair, "leftmost", index).track for index in (1, 2)]
    results = [
        stage.pipeline(t.source, sound, face=t, **QUICK) for t, sound in zip(tracks, (first, second), strict=True)
    ]
    both = list(LipSyncResult(tuple(speaker for result in results for speaker in result.speakers)).frames())
    half = both[0].shape[1] // 2
    for side, sound in ((slice(None, half), first), (slice(half, None), second)):
        openings = stage.meter.openings(frame[:, side] for frame in both)
        seen = sync(openings, level(mono(sound), sound.rate, len(both), Fraction(25)))
        assert passes(CASES["25 fps"], seen), (side, seen)
