"""The example workflows in a real ComfyUI."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from latentsync.media import VideoFile
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from scripts.workflow import to_api
from tests.comfyui import graphs

AAC_FRAME_SECONDS = 1024 / 44100  # a decoder may hand out the last frame whole


@pytest.mark.parametrize("path", sorted(graphs.WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_the_saved_graph_is_the_graph_that_is_tested(comfyui: ComfyUI, path: Path) -> None:
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert to_api(saved, comfyui.object_info()) == graphs.load(path.stem)


def test_the_video_workflow_makes_a_whole_video(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    made, source = graphs.probe(path), VideoFile(sample.video)
    assert (made.width, made.height, made.rate) == (source.width, source.height, Fraction(25))
    assert made.frames == round(25 * made.audio_seconds)
    assert made.audio_codec == "aac"
    assert made.audio_seconds == pytest.approx(3.0, abs=AAC_FRAME_SECONDS)
    stored = json.loads(made.tags["prompt"])
    assert {key: node["inputs"] for key, node in stored.items()} == {key: node["inputs"] for key, node in graph.items()}
    assert not list(path.parent.glob(".*")), "a temporary file was left behind"


def test_the_images_workflow_changes_only_the_face(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_images"), sample.landmarks.name)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    made, source = VideoFile(path), VideoFile(sample.video)
    assert (made.width, made.height, made.frame_count, made.rate) == (source.width, source.height, 75, 25)
    first, original = next(iter(made.read([0]))).astype(int), next(iter(source.read([0]))).astype(int)
    difference = np.abs(first - original).mean(axis=-1)
    assert np.median(difference) <= 2, "h264 of an untouched picture differs by a level or two"
    assert difference.max() > 30, "untrained lips are noise: the mouth must have changed"


def test_detection_runs_in_comfyui(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), "LatentSyncSampler", steps=1)
    graph["report"] = {
        "class_type": "PreviewAny",
        "inputs": {"source": [graphs.node(graph, "LatentSyncFacePrep"), 2]},
    }
    entry = comfyui.run(graph)
    assert "50 of 50" in str(entry["outputs"]["report"])


def test_a_new_seed_reruns_the_sampler_alone(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1, seed=1)
    comfyui.run(graph)
    prompt_id = comfyui.queue(graphs.changed(graph, "LatentSyncSampler", seed=2))
    comfyui.wait(prompt_id)
    ran = {event.data["node"] for event in comfyui.events.of(prompt_id, "executing") if event.data.get("node")}
    assert ran == {graphs.node(graph, "LatentSyncSampler"), graphs.node(graph, "LatentSyncVideoCombine")}


def test_progress_is_told_for_every_long_node(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    prompt_id = comfyui.queue(graphs.changed(graph, "LatentSyncSampler", seed=77, steps=2))
    comfyui.wait(prompt_id)
    sampler = graphs.node(graph, "LatentSyncSampler")
    states = [event.data["nodes"] for event in comfyui.events.of(prompt_id, "progress_state")]
    values = [state[sampler]["value"] for state in states if sampler in state]
    windows, steps = 5, 2  # 75 frames in windows of 16
    assert values == sorted(values)
    assert values[-1] == windows * steps
