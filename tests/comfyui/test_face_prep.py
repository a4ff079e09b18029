"""Face Prep in a real ComfyUI: its preview, its report and its cache."""

from __future__ import annotations

from pathlib import Path

from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SOURCE_FRAMES


def test_face_prep_shows_crops_and_report(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), "LatentSyncFacePrep", min_confidence=0.45)
    shown = comfyui.run(graph)["outputs"][graphs.node(graph, "LatentSyncFacePrep")]
    assert [image["type"] for image in shown["images"]] == ["temp"]
    assert f"1 (chosen): {SOURCE_FRAMES} of {SOURCE_FRAMES} frames" in shown["text"][0]


def test_face_prep_detects_once_per_video(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), "LatentSyncFacePrep", min_confidence=0.55)
    first = graphs.node(graph, "LatentSyncFacePrep")
    graph["second"] = {
        "class_type": "LatentSyncFacePrep",
        "inputs": {**graph[first]["inputs"], "face": "leftmost", "max_gap": 3},
    }
    graph["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["second", 2]}}
    prompt_id = comfyui.queue(graph)
    comfyui.wait(prompt_id)
    states = [event.data["nodes"] for event in comfyui.events.of(prompt_id, "progress_state")]
    longest = [max((state[node]["max"] for state in states if node in state), default=0) for node in (first, "second")]
    # ComfyUI tells of a node that counted nothing as one step, or not at all.
    assert min(longest) <= 1
    assert max(longest) == SOURCE_FRAMES
