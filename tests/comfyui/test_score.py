"""The Score node in a real ComfyUI."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample


def test_score_runs_alone_and_shows_its_chart(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    """Without the weights of SyncNet, LipLeak answers. Needs MediaPipe's model."""
    graph = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": sample.video.name}},
        "2": {"class_type": "LoadAudio", "inputs": {"audio": sample.audio.name}},
        "3": {
            "class_type": "LatentSyncScore",
            "inputs": {
                "video": ["1", 0],
                "audio": ["2", 0],
                "face": "largest",
                "face_index": 1,
                "download_missing": False,
            },
        },
    }
    (chart,) = comfyui.outputs(comfyui.run(graph))
    assert chart.is_relative_to(comfyui.temp)
    with Image.open(chart) as picture:
        assert min(picture.size) > 100
