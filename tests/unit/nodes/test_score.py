"""The Score node, on a clip with known landmarks."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from fractions import Fraction
from math import isnan
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.weights.catalog import SYNCNET
from scripts.sample_clip import Sample, camera_path, face_landmarks, write_video
from tests.support.synthetic_models import write_syncnet
from tests.support.two_people import write_two_people

Run = Callable[..., Any]
NOISE = {"waveform": 0.1 * torch.randn(1, 2, 9_600), "sample_rate": 16_000}
SECOND_OF_SILENCE = {"waveform": torch.zeros(1, 1, 16_000), "sample_rate": 16_000}


@pytest.fixture
def score(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the node on a video with its landmarks, which replace detection. `tmp_path` is the models folder."""
    from comfy_api.input_impl import VideoFromFile

    root = pack.__name__.rpartition(".")[0]
    library, locate = (importlib.import_module(f"{root}.latentsync.{name}") for name in ("stages", "weights.locate"))
    detect = library.detect_faces
    monkeypatch.setattr(pack.score, "model_folders", lambda: locate.folders_in(tmp_path))

    def run(video: Path, landmarks: dict[str, Any], sound: dict[str, Any] | None = NOISE, face_index: int = 1) -> Any:
        monkeypatch.setattr(
            library, "detect_faces", lambda source, folders, **_: detect(source, folders, landmarks=landmarks)
        )
        return pack.score.LatentSyncScore.execute(VideoFromFile(str(video)), "largest", face_index, False, sound)

    return run


@pytest.fixture
def landmarks(good: Sample) -> dict[str, Any]:
    return json.loads(good.landmarks.read_text(encoding="utf-8"))


def test_score_node_gives_numbers_words_and_chart(
    score: Run, good: Sample, landmarks: dict[str, Any], tmp_path: Path
) -> None:
    write_syncnet(tmp_path)
    video, confidence, distance, offset, verdict, chart = score(good.video, landmarks).args
    assert video.get_stream_source() == str(good.video)
    assert confidence >= 0
    assert distance > 0
    assert -15 <= offset <= 15
    assert f"Sync confidence {confidence:.2f}" in verdict
    assert "too short to trust" in verdict, "the clip has 10 frames"
    assert chart.shape == (1, 408, 1024, 3)
    assert chart.dtype == torch.float32


def test_score_node_without_weights_still_answers(score: Run, good: Sample, landmarks: dict[str, Any]) -> None:
    _, confidence, distance, offset, verdict, _ = score(good.video, landmarks).args
    assert isnan(confidence)
    assert isnan(distance)
    assert offset == 0
    assert "LipLeak" in verdict or "silent part" in verdict
    assert "The weights of SyncNet are missing" in verdict


def test_score_node_of_silence_is_an_answer(
    score: Run, good: Sample, landmarks: dict[str, Any], tmp_path: Path
) -> None:
    write_syncnet(tmp_path)
    verdict = score(good.video, landmarks, SECOND_OF_SILENCE).args[4]
    assert "Lips and sound do not clearly belong together" in verdict
    assert "of the 10 frames with silence (LipLeak)" in verdict


def test_score_node_measures_60_fps_at_25(score: Run, tmp_path: Path) -> None:
    cameras = camera_path(60)
    write_video(tmp_path / "60.mp4", cameras, Fraction(60))
    verdict = score(tmp_path / "60.mp4", face_landmarks(cameras), SECOND_OF_SILENCE).args[4]
    assert "of the 25 frames with silence (LipLeak)" in verdict


def test_score_node_chooses_among_two_people(score: Run, good: Sample, tmp_path: Path) -> None:
    write_syncnet(tmp_path)
    video, path = write_two_people(good, tmp_path)
    landmarks = json.loads(path.read_text(encoding="utf-8"))
    first, second = (score(video, landmarks, NOISE, index).args[2] for index in (1, 2))
    assert first != second
    with pytest.raises(Exception, match=r'"face_index" is 3, but two_people\.mp4 has no person with this number'):
        score(video, landmarks, NOISE, 3)


def test_score_node_names_what_is_wrong(score: Run, good: Sample, landmarks: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"has no audio\. Choose a recording, or a video with sound"):
        score(good.video, landmarks, None)
    blip = {"waveform": torch.ones(1, 1, 2_000), "sample_rate": 16_000}
    with pytest.raises(Exception, match=r"is too short to score\. It has 3 frames at 25 fps and 0\.12 s of sound"):
        score(good.video, landmarks, blip)
    write_video(tmp_path / "nobody.mp4", camera_path(12))
    with pytest.raises(Exception, match=r"nobody\.mp4 has 12 frames, but LatentSync found no face in any of them"):
        score(tmp_path / "nobody.mp4", {**landmarks, "frames": [[]]})
    path = tmp_path / SYNCNET.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"words")
    with pytest.raises(Exception, match=f"{path.name} is not a checkpoint, or contains data that is not weights"):
        score(good.video, landmarks)


def test_score_node_sound_starts_with_the_trimmed_video(pack: ModuleType, tmp_path: Path) -> None:
    from comfy_api.input_impl import VideoFromComponents, VideoFromFile
    from comfy_api.util import VideoComponents

    ramp = torch.linspace(0, 0.5, 32_000).expand(1, 1, -1)
    audio = {"waveform": ramp, "sample_rate": 16_000}
    images = torch.from_numpy(np.zeros((50, 32, 32, 3), np.float32))
    whole = VideoFromComponents(VideoComponents(images=images, audio=audio, frame_rate=Fraction(25)))
    assert pack.conversions.video_sound(whole).samples.shape == (1, 32_000)
    whole.save_to(str(tmp_path / "ramp.mp4"))
    part = VideoFromFile(str(tmp_path / "ramp.mp4"), start_time=1.0, duration=0.5)
    sound = pack.conversions.video_sound(part)
    assert float(sound.duration_seconds) == pytest.approx(0.5, abs=0.001)
    assert float(sound.samples[:].mean()) == pytest.approx(0.3125, abs=0.01)
