"""The same graph gives the same pixels, whatever ran before it."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES
from tests.support.encoder_pixels import digest_pixels

LOSSLESS = "mkv ffv1 lossless"


def made(comfyui: ComfyUI, graph: graphs.Graph) -> str:
    """Hash of the frames of a graph that runs without cache. The file is deleted, so its name is free."""
    comfyui.free()
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv")
    digest = digest_pixels(path)
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)
    return digest


def test_prompt_order_does_not_change_results(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix="repeated/clip", format=LOSSLESS)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1, cfg=1.0, length_mode="shortest")
    one = graphs.changed(graph, "LatentSyncSampler", seed=5)
    other = graphs.changed(graph, "LatentSyncSampler", seed=6, overlap=4)
    digests = [made(comfyui, each) for each in (one, other, one)]
    assert digests[0] == digests[2] != digests[1]


def test_deleted_temp_folder_is_created_again(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix="repeated/temp")
    shutil.rmtree(comfyui.temp)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graphs.changed(graph, "LatentSyncSampler", seed=8, steps=1))))
    assert graphs.probe(path).frames == OUTPUT_FRAMES
    assert Path(comfyui.temp).is_dir()
