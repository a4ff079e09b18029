"""Audio Embed in a real ComfyUI: its plot, its vocals input, and pauses that keep the original frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from latentsync.video.timeline import ping_pong
from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI, ExecutionFailedError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SOURCE_FRAMES
from tests.support.two_people import write_two_people


@pytest.fixture
def graph(sample: Sample) -> graphs.Graph:
    graph = graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name)
    return graphs.changed(graph, "LatentSyncSampler", steps=1)


def test_audio_embed_vocals_gate_the_lips(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    """The audio has speech throughout, the vocals pause for 1.6 s. So fewer windows are sampled."""
    graphs.write_speech(comfyui.input / "speech.wav", (3.0, True))
    graphs.write_speech(comfyui.input / "vocals.wav", (0.6, True), (1.6, False), (0.8, True))
    graph = graphs.changed(graph, "LoadAudio", audio="speech.wav")
    graph["vocals"] = {"class_type": "LoadAudio", "inputs": {"audio": "vocals.wav"}}
    graph = graphs.changed(graph, "LatentSyncAudioEmbed", vocals=["vocals", 0], silence="keep original")
    prompt_id = comfyui.queue(graph)
    entry = comfyui.wait(prompt_id)
    (drawn,) = entry["outputs"][graphs.node(graph, "LatentSyncAudioEmbed")]["images"]
    picture = Image.open(comfyui.base / drawn["type"] / drawn["subfolder"] / drawn["filename"])
    assert picture.size == (1024, 308)
    shaded = (np.asarray(picture)[120] == (0xD8, 0xF0, 0xD8)).all(axis=-1)
    assert shaded[:150].mean() > 0.5, "the curve is drawn over the shade"
    assert not shaded[round(1.2 / 3 * 1024) : round(1.9 / 3 * 1024)].any()
    assert windows(comfyui, graph, prompt_id) < 5, "75 frames are five windows"


def test_audio_embed_turns_divide_one_recording(comfyui: ComfyUI, sample: Sample) -> None:
    """In the template of two speakers, both have the same recording: the left person speaks in its first 0.4 s."""
    video, landmarks = write_two_people(sample, comfyui.input)
    graph = graphs.with_landmarks(graphs.quick("lipsync_two_speakers"), landmarks.name)
    graph = graphs.changed(graph, "LoadVideo", file=video.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format="mkv ffv1 lossless")
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    graph = graphs.changed(graph, "LoadAudio", audio=sample.audio.name)
    for node, turns in zip(graphs.nodes(graph, "LatentSyncAudioEmbed"), ("0-0.4", "0.4-0.6"), strict=True):
        graph[node]["inputs"]["turns"] = turns
    made = VideoFile(graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv"))
    source = VideoFile(video)
    shown = source.read([ping_pong(i, source.frame_count) for i in range(15)])
    for i, (frame, original) in enumerate(zip(made.read(range(15)), shown, strict=True)):
        left, right = np.split((frame != original).any(axis=-1), 2, axis=1)
        assert (left.any(), right.any()) == (i < 10, i >= 10), i


def test_audio_embed_pause_keeps_original_frames(comfyui: ComfyUI, sample: Sample) -> None:
    """Frames 12.5 to 62.5 are silent. The speech gate opens early and closes late."""
    recording = graphs.write_speech(comfyui.input / "pause.wav", (0.5, True), (2.0, False), (0.5, True))
    graph = graphs.with_landmarks(graphs.load("lipsync_images"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    graph = graphs.changed(graph, "LoadAudio", audio=recording.name)
    graph = graphs.changed(graph, "LatentSyncAudioEmbed", silence="keep original")
    images, parts = graphs.node(graph, "LatentSyncToImages"), graphs.node(graph, "GetVideoComponents")
    graph["gray"] = {"class_type": "MaskToImage", "inputs": {"mask": [images, 1]}}
    graphs.save(graph, "pause", {"made": [images, 0], "mask": ["gray", 0]}, first=0, length=50)
    graphs.save(graph, "pause", {"given": [parts, 0]}, first=0, length=SOURCE_FRAMES)
    prompt_id = comfyui.queue(graph)
    comfyui.wait(prompt_id)
    made, given, mask = (graphs.pictures(comfyui.output / "pause", name) for name in ("made", "given", "mask"))
    assert (len(made), len(given), len(mask)) == (50, SOURCE_FRAMES, 50)
    assert (made[5] != given[5]).any()
    for i in range(30, 50):
        np.testing.assert_array_equal(made[i], given[ping_pong(i, SOURCE_FRAMES)])
        assert mask[i].max() == 0, "the mask is of the floats themselves: not a bit differs"
    assert windows(comfyui, graph, prompt_id) <= 3, "75 frames are five windows"


def windows(comfyui: ComfyUI, graph: graphs.Graph, prompt_id: str) -> int:
    """The number of windows that the Sampler ran, of one step each."""
    sampler = graphs.node(graph, "LatentSyncSampler")
    states = [event.data["nodes"] for event in comfyui.events.of(prompt_id, "progress_state")]
    return [state[sampler]["max"] for state in states if sampler in state][-1]


def test_audio_embed_refuses_offset_beyond_recording(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graphs.changed(graph, "LatentSyncAudioEmbed", offset_ms=-500_000))
    assert caught.value.node_type == "LatentSyncAudioEmbed"
    assert 'Set "offset_ms" closer to 0' in caught.value.exception_message


def test_audio_embed_without_audio_says_what_to_connect(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    """Get Video Components gives no AUDIO for a file without audio."""
    video = graphs.node(graph, "LoadVideo")
    graph["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": [video, 0]}}
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graphs.changed(graph, "LatentSyncAudioEmbed", audio=["parts", 1]))
    assert caught.value.node_type == "LatentSyncAudioEmbed"
    assert "Connect the AUDIO of Load Audio" in caught.value.exception_message
