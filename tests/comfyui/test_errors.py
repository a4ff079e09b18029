"""Errors in ComfyUI: one sentence at the node that failed, and no half file."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from latentsync.output.video_writer import VideoWriter
from scripts.comfyui import ComfyUI, ExecutionFailedError, InvalidPromptError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES
from tests.support.model_files import put_aside

UNET = Path("latentsync/1.5/latentsync_unet.safetensors")
OLD_GRAPH = Path(__file__).with_name("graph_before_renames.json")


@pytest.fixture
def graph(sample: Sample, request: pytest.FixtureRequest) -> graphs.Graph:
    """The video workflow with its own output name. The seed keeps ComfyUI from using its cache."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    return graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix=f"errors/{request.node.originalname}")


def fails(comfyui: ComfyUI, graph: graphs.Graph) -> ExecutionFailedError:
    """Run a graph that must fail. It may leave nothing in its output folder."""
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graph)
    folder = comfyui.output / "errors"
    assert not folder.exists() or not list(folder.iterdir())
    return caught.value


def fails_to_load(comfyui: ComfyUI, graph: graphs.Graph, version: str) -> ExecutionFailedError:
    """Run a graph that must fail at Load Model. The changed version makes ComfyUI run that node again."""
    return fails(comfyui, graphs.changed(graph, "LatentSyncLoadModel", version=version, unet="auto"))


def test_errors_list_all_missing_weights(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    error = fails_to_load(comfyui, graph, "1.6")
    assert error.node_type == "LatentSyncLoadModel"
    assert "latentsync_unet.pt" in error.exception_message
    assert "huggingface.co/ByteDance/LatentSync-1.6" in error.exception_message
    assert "5,072 MB" in error.exception_message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(lambda tensors: tensors.pop("conv_in.weight"), "conv_in.weight", id="missing key"),
        pytest.param(lambda tensors: tensors.update(extra=torch.zeros(1)), "extra", id="unexpected key"),
        pytest.param(
            lambda tensors: tensors.update({"conv_in.weight": torch.zeros(32, 12, 3, 3)}), "conv_in.weight", id="shape"
        ),
    ],
)
def test_errors_refuse_another_unet(comfyui: ComfyUI, graph: graphs.Graph, change, said: str) -> None:  # noqa: ANN001
    path = comfyui.models / UNET
    with put_aside(path) as good:
        tensors = load_file(good)
        change(tensors)
        save_file(tensors, path)
        error = fails_to_load(comfyui, graph, "1.5")
    assert error.node_type == "LatentSyncLoadModel"
    assert said in error.exception_message
    assert path.name in error.exception_message


def test_errors_refuse_truncated_checkpoint(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    path = comfyui.models / UNET
    with put_aside(path) as good:
        path.write_bytes(good.read_bytes()[:100_000])
        error = fails_to_load(comfyui, graph, "1.5")
    assert path.name in error.exception_message


def test_errors_refuse_another_vae(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    path = comfyui.models / "vae" / "sd-vae-ft-mse.safetensors"
    with put_aside(path) as good:
        tensors = load_file(good)
        del tensors["decoder.conv_in.bias"]
        save_file(tensors, path)
        error = fails_to_load(comfyui, graph, "1.5")
    assert "sd-vae-ft-mse" in error.exception_message


def test_errors_name_video_without_face(comfyui: ComfyUI, graph: graphs.Graph, shared: Path) -> None:
    assert shared
    with VideoWriter(comfyui.input / "gray.mp4", rate=Fraction(25), height=64, width=64) as writer:
        for _ in range(5):
            writer.write(np.full((64, 64, 3), 127, np.uint8))
    graph = graphs.changed(graph, "LoadVideo", file="gray.mp4")
    del graph[graphs.node(graph, "LatentSyncFacePrep")]["inputs"]["face_landmarks"]
    error = fails(comfyui, graph)
    assert error.node_type == "LatentSyncFacePrep"
    assert "gray.mp4 has 5 frames, but LatentSync found no face in any of them" in error.exception_message


def test_errors_name_file_that_is_no_video(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    (comfyui.input / "words.mp4").write_text("this is no video", encoding="utf-8")
    error = fails(comfyui, graphs.changed(graph, "LoadVideo", file="words.mp4"))
    assert "words.mp4" in error.exception_message


def test_errors_refuse_silent_recording(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    graph["silence"] = {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}}
    error = fails(comfyui, graphs.changed(graph, "LatentSyncAudioEmbed", audio=["silence", 0]))
    assert error.node_type == "LatentSyncAudioEmbed"
    assert "silent" in error.exception_message


def test_errors_name_missing_face_landmarker(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    model = comfyui.models / "latentsync" / "face_landmarker.task"
    graph = graphs.changed(graph, "LatentSyncFacePrep", min_confidence=0.43)  # no search of another test is at hand
    del graph[graphs.node(graph, "LatentSyncFacePrep")]["inputs"]["face_landmarks"]
    if model.exists():
        with put_aside(model):
            error = fails(comfyui, graph)
    else:
        error = fails(comfyui, graph)
    assert "face_landmarker.task" in error.exception_message
    assert "mediapipe-models" in error.exception_message


def test_errors_do_not_stop_the_next_prompt(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    assert graphs.probe(path).frames == OUTPUT_FRAMES
    shutil.rmtree(path.parent)


def test_errors_old_graph_says_what_was_renamed(comfyui: ComfyUI, sample: Sample) -> None:
    """A graph in API format from before the inputs got their present names."""
    graph = json.loads(OLD_GRAPH.read_text(encoding="utf-8"))
    for node, values in (("LoadVideo", {"file": sample.video.name}), ("LoadAudio", {"audio": sample.audio.name})):
        graph = graphs.changed(graph, node, **values)
    with pytest.raises(InvalidPromptError) as caught:
        comfyui.queue(graph)
    node_error = caught.value.node_errors[graphs.node(graph, "LatentSyncVideoCombine")]
    details = [error["details"] for error in node_error["errors"]]
    assert {"lips_1", "paste_mode", "mask_feather", "mask_expand"} <= set(details), "missing inputs, by their new names"
    (renamed,) = [text for text in details if "older version" in text]
    assert '"blend" is now "paste_mode", "guidance" is "cfg"' in renamed
    assert "Delete the LatentSync nodes and add them again" in renamed


def test_errors_paste_mode_that_does_not_exist_is_named(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    with pytest.raises(InvalidPromptError, match='"paste_mode" must be mouth or full crop'):
        comfyui.queue(graphs.changed(graph, "LatentSyncVideoCombine", paste_mode="box"))
