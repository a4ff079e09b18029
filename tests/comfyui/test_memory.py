"""When memory runs out, a run continues with smaller batches or ends in one sentence. The next run works."""

from __future__ import annotations

import numpy as np
import pytest

from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI, ExecutionFailedError
from scripts.sample_clip import Sample
from tests.support import graphs

STAGES = ["unet", "encode", "decode", "whisper"]


def graph_of(sample: Sample, prefix: str, **narrow: object) -> graphs.Graph:
    """The video workflow. If a stage is named, that stage runs out of memory."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", deepcache_interval=2, length_mode="shortest")
    graph = graphs.changed(
        graph, "LatentSyncVideoCombine", filename_prefix=f"memory/{prefix}", format="mkv ffv1 lossless"
    )
    if narrow:
        model = graphs.node(graph, "LatentSyncLoadModel")
        for node in graph.values():
            node["inputs"] |= {"model": ["narrow", 0]} if "model" in node["inputs"] else {}
        graph["narrow"] = {"class_type": "LatentSyncTestNarrow", "inputs": {"model": [model, 0], **narrow}}
    return graph


def frames(comfyui: ComfyUI, graph: graphs.Graph) -> np.ndarray:
    video = VideoFile(graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv"))
    return np.stack(list(video.read(range(video.frame_count))))


def test_memory_cfg_passes_split_when_both_do_not_fit(comfyui: ComfyUI, sample: Sample) -> None:
    expected = frames(comfyui, graph_of(sample, "whole"))
    apart = frames(comfyui, graph_of(sample, "apart", stage="unet", holds=1))
    # float32 kernels sum in another order for another batch; untrained layers amplify it
    assert np.abs(apart.astype(int) - expected).mean() < 0.1


@pytest.mark.parametrize("stage", STAGES)
def test_memory_oom_raises_and_next_prompt_runs(comfyui: ComfyUI, sample: Sample, stage: str) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graph_of(sample, stage, stage=stage, holds=0))
    said = caught.value.exception_message.strip()
    assert "out of memory" in said.lower()
    assert "Close other programs" in said
    assert "choose version 1.5, or precision fp8 in Load Model" in said
    assert "\n" not in said
    assert not list((comfyui.output / "memory").glob(f"{stage}*.mkv"))
    assert len(frames(comfyui, graph_of(sample, f"{stage}-after")))


def test_memory_changed_input_reuses_the_stages_before_it(comfyui: ComfyUI, sample: Sample) -> None:
    """A changed recording reuses face detection. A changed blend reuses sampling."""
    graph = graph_of(sample, "cached")
    comfyui.run(graph)
    again = graphs.changed(graph, "LatentSyncAudioEmbed", offset_ms=40)
    assert cached(comfyui, again) >= {"LatentSyncLoadModel", "LatentSyncFacePrep"}
    blended = graphs.changed(again, "LatentSyncVideoCombine", mask_feather=2.0)
    assert cached(comfyui, blended) >= {"LatentSyncFacePrep", "LatentSyncAudioEmbed", "LatentSyncSampler"}


def cached(comfyui: ComfyUI, graph: graphs.Graph) -> set[str]:
    """The classes of the nodes whose results came from ComfyUI's cache."""
    prompt_id = comfyui.queue(graph)
    comfyui.wait(prompt_id)
    event = comfyui.events.wait_for(
        lambda event: event.type == "execution_cached" and event.prompt_id == prompt_id, timeout_seconds=10
    )
    return {graph[node]["class_type"] for node in event.data["nodes"]}
