"""Face detection that is cancelled again and again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from scripts.comfyui import ComfyUI, ExecutionInterruptedError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SOURCE_FRAMES


def test_cancel_of_face_detection_does_not_harm_next_prompt(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    """The detector is native code that another thread calls. It must be idle before it is closed."""
    shutil.copyfile(shared / "media" / "demo3_video.mp4", comfyui.input / "long.mp4")
    graph = graphs.changed(graphs.quick("lipsync_video"), "LoadVideo", file="long.mp4")
    for _ in range(3):
        prompt_id = comfyui.queue(graph)
        graphs.wait_for_progress(graph, "LatentSyncFacePrep", comfyui, prompt_id)
        comfyui.interrupt()
        with pytest.raises(ExecutionInterruptedError):
            comfyui.wait(prompt_id)
    again = graphs.changed(graphs.quick("lipsync_video"), "LatentSyncFacePrep", min_confidence=0.6)
    prep = graphs.node(again, "LatentSyncFacePrep")
    alone = {key: node for key, node in again.items() if key == prep or node["class_type"] == "LoadVideo"}
    alone["report"] = {"class_type": "PreviewAny", "inputs": {"source": [prep, 2]}}
    assert f"{SOURCE_FRAMES} of {SOURCE_FRAMES}" in str(comfyui.run(alone)["outputs"]["report"])
