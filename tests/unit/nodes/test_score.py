"""The Score node, on a clip with known landmarks."""

from __future__ import annotations

import json
from fractions import Fraction
from math import isnan
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from scripts.sample_clip import Sample
from tests.support.synthetic_models import write_syncnet


@pytest.fixture
def scored(pack: ModuleType, good: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the node on the sample clip. Its landmarks replace detection."""
    from comfy_api.input_impl import VideoFromFile

    node = pack.score
    library = __import__(f"{pack.__name__.rpartition('.')[0]}.latentsync.pipeline", fromlist=["detect_faces"])
    landmarks = json.loads(good.landmarks.read_text(encoding="utf-8"))
    detect = library.detect_faces
    monkeypatch.setattr(
        library, "detect_faces", lambda source, folders, **_: detect(source, folders, landmarks=landmarks)
    )
    locate = __import__(f"{pack.__name__.rpartition('.')[0]}.latentsync.weights.locate", fromlist=["folders_in"])
    monkeypatch.setattr(node, "model_folders", lambda: locate.folders_in(tmp_path))
    sound = {"waveform": 0.1 * torch.randn(1, 2, 9_600), "sample_rate": 16_000}
    video = VideoFromFile(str(good.video))
    return lambda: (video, node.LatentSyncScore.execute(video, "largest", 1, False, sound))


def test_score_node_gives_numbers_words_and_chart(scored: Any, tmp_path: Path) -> None:
    write_syncnet(tmp_path)
    video, output = scored()
    passed, confidence, distance, offset, verdict, chart = output.args
    assert passed is video
    assert confidence >= 0
    assert distance > 0
    assert -15 <= offset <= 15
    assert f"Sync confidence {confidence:.2f}" in verdict
    assert "too short to trust" in verdict
    assert chart.shape == (1, 408, 1024, 3)
    assert chart.dtype == torch.float32


def test_score_node_without_weights_still_answers(scored: Any) -> None:
    _, output = scored()
    _, confidence, distance, offset, verdict, _ = output.args
    assert isnan(confidence)
    assert isnan(distance)
    assert offset == 0
    assert "LipLeak" in verdict or "silent part" in verdict
    assert "The weights of SyncNet are missing" in verdict


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
    assert float(sound.samples.mean()) == pytest.approx(0.3125, abs=0.01)
