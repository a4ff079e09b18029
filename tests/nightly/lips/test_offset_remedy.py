"""The command line finds the offset of a result, and its advice mends it. MediaPipe measures the miniature's mouth."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from latentsync.cli.main import main
from latentsync.weights.catalog import FACE_LANDMARKER
from scripts.sample_clip import Sample, make_sample

SECONDS = 4.0
OFFSET_MS = 200


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("offset"), seconds=SECONDS)


@pytest.fixture(scope="module")
def models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with MediaPipe's detector, without SyncNet."""
    folder = tmp_path_factory.mktemp("models")
    path = folder / FACE_LANDMARKER.path
    path.parent.mkdir()
    path.symlink_to(shared / "models" / "face_landmarker.task")
    return folder


def score(video: Path, models: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["score", str(video), "--models", str(models), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_score_offset_and_its_remedy(
    sample: Sample, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(offset_ms: int) -> dict[str, Any]:
        output = tmp_path / f"{offset_ms}.mp4"
        arguments = ["run", sample.video, sample.audio, "-o", output, "--face-landmarks", sample.landmarks]
        arguments += ["--miniature", "--steps", 10, "--offset-ms", offset_ms]
        assert main([*map(str, arguments)]) == 0
        return score(output, models, capsys)

    late_lips = run(OFFSET_MS)
    assert late_lips["mouth_sync"]["clear"]
    assert late_lips["mouth_sync"]["offset_ms"] == OFFSET_MS
    (change,) = re.findall(r"add (-?\d+) to offset_ms", late_lips["verdict"])
    mended = run(OFFSET_MS + int(change))
    assert mended["mouth_sync"]["offset_ms"] == 0
    assert "in sync within a frame" in mended["verdict"]
