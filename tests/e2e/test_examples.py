"""The examples run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from latentsync import VideoFile
from scripts.sample_clip import make_sample
from tests.support.comfyui_server import RESOLUTION
from tests.support.paths import REPOSITORY
from tests.support.synthetic_models import write_models


def test_examples_lip_sync_writes_a_video(tmp_path: Path, shared: Path) -> None:
    sample = make_sample(tmp_path, seconds=0.6)
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
    assert VideoFile(output).frame_count == 15


def test_examples_stand_in_the_readme() -> None:
    code = (REPOSITORY / "docs" / "examples" / "lip_sync.py").read_text(encoding="utf-8").partition("\n\n")[2].strip()
    call = code[code.index("pipe = ") :]
    assert call in (REPOSITORY / "README.md").read_text(encoding="utf-8")
