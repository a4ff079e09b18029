"""Face Prep in a real ComfyUI: its preview, its report and its cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from latentsync.faces.report import CHOSEN_RGB
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SOURCE_FRAMES

FACE_PREP = "LatentSyncFacePrep"


def test_face_prep_shows_crops_and_report(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), FACE_PREP, min_confidence=0.45)
    shown = comfyui.run(graph)["outputs"][graphs.node(graph, FACE_PREP)]
    assert [image["type"] for image in shown["images"]] == ["temp"]
    assert f"1 (chosen): {SOURCE_FRAMES} of {SOURCE_FRAMES} frames" in shown["text"][0]


def test_face_prep_detects_once_per_video(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), FACE_PREP, min_confidence=0.55)
    first = graphs.node(graph, FACE_PREP)
    graph["second"] = {
        "class_type": FACE_PREP,
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


def test_face_prep_runs_alone(comfyui: ComfyUI, sample: Sample) -> None:
    """The page's run button of a node sends the node and what it needs."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, FACE_PREP, max_gap=5)
    alone = graphs.needed(graph, FACE_PREP)
    assert {node["class_type"] for node in alone.values()} == {"LoadVideo", "LatentSyncDemoLandmarks", FACE_PREP}
    start = len(comfyui.events)
    prompt_id = comfyui.queue(alone)
    shown = comfyui.wait(prompt_id)["outputs"][graphs.node(graph, FACE_PREP)]
    (image,) = comfyui.outputs({"outputs": {"alone": {"images": shown["images"]}}})
    border = np.asarray(Image.open(image).convert("RGB"))[-4:, 40:-4]
    assert np.abs(border.astype(int) - CHOSEN_RGB).max() <= 1
    text = comfyui.events.wait_for(lambda event: event.type == "text", start=start)
    summary = f"Person 1 of 1, in {SOURCE_FRAMES} of {SOURCE_FRAMES} frames"
    assert text.data == {"node": graphs.node(graph, FACE_PREP), "text": f"{summary}\n{shown['text'][0]}"}


def test_previews_come_back_after_a_reload(comfyui: ComfyUI, sample: Sample) -> None:
    """The page asks for the same prompt again: nothing runs, and each preview is sent again."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    comfyui.run(graph)
    again = comfyui.run(graph)["outputs"]
    for node_type in (FACE_PREP, "LatentSyncAudioEmbed"):
        assert again[graphs.node(graph, node_type)]["images"], node_type
