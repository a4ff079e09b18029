"""A running job stops when the user says so, and the next one works."""

from __future__ import annotations

import json
import shutil
import time
import wave
from pathlib import Path

import pytest

from scripts.comfyui import ComfyUI, ExecutionInterruptedError
from scripts.sample_clip import Sample
from tests.support import graphs

LONGEST_WAIT_SECONDS = 2.0
LONG_SPEECH = "ten minutes.wav"


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


def repeat(recording: Path, longer: Path) -> None:
    """The three seconds of the sample's speech, two hundred times."""
    with wave.open(str(recording)) as given, wave.open(str(longer), "wb") as made:
        made.setparams(given.getparams())
        made.writeframes(200 * given.readframes(given.getnframes()))


@pytest.mark.parametrize(
    ("class_type", "busy"),
    [
        ("LatentSyncAudioEmbed", {"LoadAudio": {"audio": LONG_SPEECH}}),
        ("LatentSyncSampler", {"LatentSyncSampler": {"steps": 100, "step_cache": "off"}}),
        ("LatentSyncVideoCombine", {"LatentSyncSampler": {"steps": 1}, "LatentSyncVideoCombine": {"crf": 0}}),
    ],
)
def test_cancel_stops_the_node_and_next_prompt_runs(
    comfyui: ComfyUI, sample: Sample, class_type: str, busy: dict[str, dict[str, object]]
) -> None:
    repeat(sample.audio, comfyui.input / LONG_SPEECH)
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
    left = sorted((comfyui.output / "cancel").glob(f"*{class_type}*")) + list((comfyui.output / "cancel").glob(".*"))
    assert {path.suffix for path in left} <= {".json"}, "a half-written video was left behind"
    assert [json.loads(path.read_text(encoding="utf-8"))["outcome"] for path in left] == ["cancelled"] * len(left)
    assert len(left) == (class_type == "LatentSyncVideoCombine"), "who has an output has a record of it"

    short = graphs.changed(graph, "LatentSyncSampler", steps=1)
    path = graphs.the_video(comfyui.outputs(comfyui.run(short)))
    assert graphs.probe(path).frames == 75
    path.unlink()


def test_cancel_of_face_detection_does_not_harm_next_prompt(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    """The detector is native code, which another thread feeds: it must be idle before it is closed."""
    shutil.copyfile(shared / "media" / "demo3_video.mp4", comfyui.input / "long.mp4")
    graph = graphs.changed(graphs.quick("lipsync_video"), "LoadVideo", file="long.mp4")
    for _ in range(3):
        prompt_id = comfyui.queue(graph)
        progress_of(graph, "LatentSyncFacePrep", comfyui, prompt_id)
        comfyui.interrupt()
        with pytest.raises(ExecutionInterruptedError):
            comfyui.wait(prompt_id)
    again = graphs.changed(graphs.quick("lipsync_video"), "LatentSyncFacePrep", min_confidence=0.6)
    prep = graphs.node(again, "LatentSyncFacePrep")
    alone = {key: node for key, node in again.items() if key == prep or node["class_type"] == "LoadVideo"}
    alone["report"] = {"class_type": "PreviewAny", "inputs": {"source": [prep, 2]}}
    assert "50 of 50" in str(comfyui.run(alone)["outputs"]["report"])
