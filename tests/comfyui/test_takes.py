"""Several takes of the Sampler in a real ComfyUI, scored with untrained weights of SyncNet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI, ExecutionFailedError, ExecutionInterruptedError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.synthetic_models import write_syncnet

SAMPLER = "LatentSyncSampler"


@pytest.fixture
def syncnet(comfyui: ComfyUI) -> Iterator[None]:
    """SyncNet's weights in ComfyUI's models folder. Other tests need none."""
    path = write_syncnet(comfyui.models)
    yield
    path.unlink()


def graph_of(sample: Sample, **inputs: object) -> graphs.Graph:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix="takes/out", format="mkv ffv1 lossless")
    return graphs.changed(graph, SAMPLER, **inputs)


def run(comfyui: ComfyUI, graph: graphs.Graph) -> tuple[bytes, dict[str, Any], list[str]]:
    """The pixels of the lossless video, its record, and the texts that the nodes showed."""
    start = len(comfyui.events)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv")
    video = VideoFile(path)
    pixels = b"".join(frame.tobytes() for frame in video.read(range(video.frame_count)))
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return pixels, record, [event.data["text"] for event in list(comfyui.events)[start:] if event.type == "text"]


@pytest.mark.usefixtures("syncnet")
def test_takes_keep_the_seed_with_the_best_score(comfyui: ComfyUI, sample: Sample) -> None:
    pixels, record, texts = run(comfyui, graph_of(sample, seed=40, takes=3))
    confidences = {take["seed"]: take["confidence"] for take in record["takes"]}
    assert list(confidences) == [40, 41, 42]
    assert len(set(confidences.values())) == 3, "each seed gives different lips"
    best = max(confidences, key=lambda seed: confidences[seed])
    assert record["seed"] == best
    (summary,) = [text for text in texts if f"The lips come from seed {best}." in text]
    for seed, confidence in confidences.items():
        assert f"seed {seed}: sync confidence {confidence:.2f}, distance" in summary
    alone, record, _ = run(comfyui, graph_of(sample, seed=best, takes=1))
    assert record["takes"] == []
    assert alone == pixels


@pytest.mark.usefixtures("syncnet")
def test_takes_continue_after_a_cancel(comfyui: ComfyUI, sample: Sample) -> None:
    """The second run makes only the takes that the first one did not finish."""
    graph = graph_of(sample, seed=50, takes=2, steps=8)
    start, prompt_id = len(comfyui.events), comfyui.queue(graph)
    during = comfyui.events.wait_for(
        lambda event: event.type == "text" and "Take 2 of 2: Window" in event.data["text"], 120, start
    )
    assert during.data["text"].startswith("seed 50: sync confidence ")
    comfyui.interrupt()
    with pytest.raises(ExecutionInterruptedError):
        comfyui.wait(prompt_id)
    _, record, texts = run(comfyui, graph)
    assert [take["seed"] for take in record["takes"]] == [50, 51]
    sampled = {number for number in (1, 2) for text in texts if f"Take {number} of 2: Window" in text}
    assert sampled == {2}


def test_takes_without_weights_say_how_to_get_them(comfyui: ComfyUI, sample: Sample) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graph_of(sample, seed=60, takes=2))
    assert caught.value.node_type == SAMPLER
    said = caught.value.exception_message
    assert "syncnet_v2.model (55 MB) into" in said
    assert "Switch on download_missing in Score" in said
    assert '"takes" and the sync score need SyncNet' in said
