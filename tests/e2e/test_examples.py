"""The examples run as they are."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from latentsync import LipSyncPipeline, VideoFile
from latentsync.weights.catalog import FACE_LANDMARKER
from latentsync.weights.locate import folders_in
from scripts.sample_clip import make_sample
from tests.support.comfyui_server import RESOLUTION
from tests.support.paths import REPOSITORY
from tests.support.synthetic_models import write_models


def test_examples_lip_sync_writes_a_video(tmp_path: Path, shared: Path) -> None:
    sample = make_sample(tmp_path, seconds=0.24)
    write_models(tmp_path / "models", resolution=RESOLUTION)
    landmarker = tmp_path / "models" / "latentsync" / "face_landmarker.task"
    landmarker.write_bytes((shared / "models" / "face_landmarker.task").read_bytes())
    output = tmp_path / "out.mp4"
    script = REPOSITORY / "docs" / "examples" / "lip_sync.py"
    inputs = (sample.video, sample.audio, output, tmp_path / "models")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, script, *map(str, inputs)], cwd=REPOSITORY, env=environment, check=True, timeout=300
    )
    assert VideoFile(output).frame_count == 6


@pytest.mark.usefixtures("stand_in_networks")
def test_examples_python_page_runs(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of the page run one after the other, on the files that it names, with stand-in networks."""
    sample = make_sample(tmp_path, seconds=0.6)
    sample.video.rename(tmp_path / "talk.mp4")
    sample.audio.rename(tmp_path / "speech.wav")
    landmarker = tmp_path / "models" / FACE_LANDMARKER.path
    landmarker.parent.mkdir(parents=True)
    landmarker.write_bytes((shared / "models" / "face_landmarker.task").read_bytes())
    folders = folders_in(tmp_path / "models")
    pipeline = replace(LipSyncPipeline.miniature(), folders=folders)
    monkeypatch.setattr(LipSyncPipeline, "from_pretrained", lambda **_: pipeline)
    monkeypatch.chdir(tmp_path)
    page = (REPOSITORY / "docs" / "python_api.md").read_text(encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), encoding="utf-8")
    runpy.run_path(str(script))
    outputs = ("out.mp4", "lossless.mkv", "stages.mp4")
    assert [VideoFile(tmp_path / name).frame_count for name in outputs] == [15, 15, 15]


def test_examples_stand_in_the_documentation() -> None:
    code = (REPOSITORY / "docs" / "examples" / "lip_sync.py").read_text(encoding="utf-8").partition("\n\n")[2].strip()
    call = code[code.index("pipe = ") :]
    assert call in (REPOSITORY / "docs" / "python_api.md").read_text(encoding="utf-8")
