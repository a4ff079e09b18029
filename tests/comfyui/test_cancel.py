"""A running job stops when the user says so, and the next one works."""

from __future__ import annotations

import time

import pytest

from scripts.comfyui import ComfyUI, ExecutionInterruptedError
from scripts.sample_clip import Sample
from tests.comfyui import graphs

LONGEST_WAIT_SECONDS = 2.0


def progress_of(graph: graphs.Graph, class_type: str, comfyui: ComfyUI, prompt_id: str) -> None:
    """Wait until a node of the prompt has made some progress."""
    running = graphs.node(graph, class_type)
    comfyui.events.wait_for(
        lambda event: (
            event.type == "progress_state"
            and event.prompt_id == prompt_id
            and 0 < event.data["nodes"].get(running, {"value": 0})["value"] < event.data["nodes"][running]["max"]
        ),
        timeout_seconds=120,
    )


@pytest.mark.parametrize(
    ("class_type", "busy"),
    [
        ("LatentSyncSampler", {"LatentSyncSampler": {"steps": 100, "step_cache": "off"}}),
        ("LatentSyncVideoCombine", {"LatentSyncSampler": {"steps": 1}, "LatentSyncVideoCombine": {"crf": 0}}),
    ],
)
def test_a_cancelled_job_stops_at_once_and_the_next_one_works(
    comfyui: ComfyUI, sample: Sample, class_type: str, busy: dict[str, dict[str, object]]
) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix=f"cancel/{class_type}")
    long = graph
    for name, inputs in busy.items():
        long = graphs.changed(long, name, **inputs)
    prompt_id = comfyui.queue(long)
    progress_of(long, class_type, comfyui, prompt_id)
    asked = time.monotonic()
    comfyui.interrupt()
    with pytest.raises(ExecutionInterruptedError):
        comfyui.wait(prompt_id)
    assert time.monotonic() - asked < LONGEST_WAIT_SECONDS
    folder = comfyui.output / "cancel"
    assert not folder.exists() or not list(folder.iterdir()), "a half-written video was left behind"

    short = graphs.changed(graph, "LatentSyncSampler", steps=1)
    path = graphs.the_video(comfyui.outputs(comfyui.run(short)))
    assert graphs.probe(path).frames == 75
    path.unlink()
