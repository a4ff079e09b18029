"""A running prompt stops when the user cancels it, and the next prompt works."""

from __future__ import annotations

import json
import time
import wave
from pathlib import Path

import pytest

from scripts.comfyui import ComfyUI, ExecutionInterruptedError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES

LONGEST_WAIT_SECONDS = 10.0  # also on a busy machine
LONG_SPEECH, SHORT_SPEECH = "ten minutes.wav", "four seconds.wav"


def repeat(recording: Path, longer: Path, times: int) -> None:
    """Write the sample's speech several times in a row."""
    with wave.open(str(recording)) as given, wave.open(str(longer), "wb") as made:
        made.setparams(given.getparams())
        made.writeframes(times * given.readframes(given.getnframes()))


@pytest.mark.parametrize(
    ("class_type", "busy"),
    [
        ("LatentSyncAudioEmbed", {"LoadAudio": {"audio": LONG_SPEECH}}),
        ("LatentSyncSampler", {"LatentSyncSampler": {"steps": 100, "deepcache_interval": 1}}),
        (
            "LatentSyncVideoCombine",
            {
                "LoadAudio": {"audio": SHORT_SPEECH},
                "LatentSyncSampler": {"steps": 1},
                "LatentSyncVideoCombine": {"crf": 0},
            },
        ),
    ],
)
def test_cancel_stops_the_node_and_next_prompt_runs(
    comfyui: ComfyUI, sample: Sample, class_type: str, busy: dict[str, dict[str, object]]
) -> None:
    repeat(sample.audio, comfyui.input / LONG_SPEECH, 600)
    repeat(sample.audio, comfyui.input / SHORT_SPEECH, 4)
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix=f"cancel/{class_type}")
    long = graph
    for name, inputs in busy.items():
        long = graphs.changed(long, name, **inputs)
    prompt_id = comfyui.queue(long)
    graphs.wait_for_progress(long, class_type, comfyui, prompt_id)
    asked = time.monotonic()
    comfyui.interrupt()
    with pytest.raises(ExecutionInterruptedError, match=rf"in node {graphs.node(long, class_type)}\."):
        comfyui.wait(prompt_id)
    assert time.monotonic() - asked < LONGEST_WAIT_SECONDS
    left = sorted((comfyui.output / "cancel").glob(f"*{class_type}*")) + list((comfyui.output / "cancel").glob(".*"))
    assert {path.suffix for path in left} <= {".json"}, "a half-written video was left behind"
    assert [json.loads(path.read_text(encoding="utf-8"))["outcome"] for path in left] == ["cancelled"] * len(left)
    assert len(left) == (class_type == "LatentSyncVideoCombine"), "who has an output has a record of it"

    short = graphs.changed(graph, "LatentSyncSampler", steps=1)
    path = graphs.the_video(comfyui.outputs(comfyui.run(short)))
    assert graphs.probe(path).frames == OUTPUT_FRAMES
    path.unlink()
