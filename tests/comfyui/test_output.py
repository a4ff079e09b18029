"""What Video Combine and To Images put out, in a real ComfyUI."""

from __future__ import annotations

import copy
import hashlib
import json

import jsonschema
import pytest

from latentsync.media import VideoFile
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.comfyui import graphs

SCHEMA = json.loads((graphs.REPOSITORY / "docs" / "record.schema.json").read_text(encoding="utf-8"))


def with_landmarks(graph: graphs.Graph, file: str) -> graphs.Graph:
    """A copy in which every Face Prep takes stored landmarks instead of detecting."""
    graph = copy.deepcopy(graph)
    graph["landmarks"] = {"class_type": "LatentSyncDemoLandmarks", "inputs": {"file": file}}
    for node in graph.values():
        if node["class_type"] == "LatentSyncFacePrep":
            node["inputs"]["landmarks"] = ["landmarks", 0]
        if node["class_type"] == "LatentSyncSampler":
            node["inputs"]["steps"] = 1
    return graph


@pytest.mark.parametrize("name", ["lipsync_two_speakers", "lipsync_restored"])
def test_the_example_makes_a_whole_video(comfyui: ComfyUI, sample: Sample, name: str) -> None:
    (path,) = (p for p in comfyui.outputs(comfyui.run(with_landmarks(graphs.load(name), sample.landmarks.name))))
    assert graphs.probe(path).frames == 75


@pytest.mark.parametrize("form", ["webm vp9", "mov prores 422", "mkv ffv1 lossless"])
def test_another_format_with_its_record(comfyui: ComfyUI, sample: Sample, form: str) -> None:
    graph = with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format=form, consent="a test", filename_prefix="formats/x")
    (path,) = comfyui.outputs(comfyui.run(graph))
    assert VideoFile(path).frame_count == 75
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(record)
    assert record["output"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["inputs"][0]["sha256"] == hashlib.sha256(sample.video.read_bytes()).hexdigest()
    assert (record["consent"], record["model_version"], record["frames"]["total"]) == ("a test", "1.5", 75)
    assert record["model_files"][0]["name"].startswith("latentsync_unet")
    assert path.name.startswith("x_")
