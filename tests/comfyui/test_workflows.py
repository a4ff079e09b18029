"""The example workflows in a real ComfyUI."""

from __future__ import annotations

import json
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latentsync.audio.reader import read_audio
from latentsync.video.video_file import VideoFile
from scripts.comfyui import PACK, ComfyUI
from scripts.sample_clip import Sample
from scripts.workflow import to_api
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES, SAMPLE_SECONDS, SOURCE_FRAMES, WINDOWS
from tests.support.partner_apis import TRANSCRIPT, TRANSLATED, VOICE, Partner

AAC_FRAME_SECONDS = 1024 / 44100  # a decoder may hand out the last frame whole
THUMBNAIL_BYTES = 60_000  # they travel with every install


@pytest.mark.parametrize("path", sorted(graphs.WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_workflow_api_form_matches_saved_graph(comfyui: ComfyUI, path: Path) -> None:
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert to_api(saved, comfyui.object_info()) == graphs.saved(path.stem)


def test_workflow_video_writes_complete_file(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    made, source = graphs.probe(path), VideoFile(sample.video)
    assert (made.width, made.height, made.rate) == (source.width, source.height, Fraction(25))
    assert abs(made.frames - 25 * made.audio_seconds) <= 25 * AAC_FRAME_SECONDS
    assert made.audio_codec == "aac"
    assert made.audio_seconds == pytest.approx(SAMPLE_SECONDS, abs=AAC_FRAME_SECONDS)
    stored = json.loads(made.tags["prompt"])
    assert {key: node["inputs"] for key, node in stored.items()} == {key: node["inputs"] for key, node in graph.items()}
    assert not list(path.parent.glob(".*")), "a temporary file was left behind"


def test_workflow_images_changes_only_the_face(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_images"), sample.landmarks.name)
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    made, source = VideoFile(path), VideoFile(sample.video)
    assert (made.width, made.height, made.frame_count, made.rate) == (source.width, source.height, OUTPUT_FRAMES, 25)
    first, original = next(iter(made.read([0]))).astype(int), next(iter(source.read([0]))).astype(int)
    difference = np.abs(first - original).mean(axis=-1)
    assert np.median(difference) <= 2, "h264 of an untouched picture differs by a level or two"
    assert difference.max() > 30, "untrained lips are noise: the mouth must have changed"


def test_workflow_image_to_video_has_audio_length(comfyui: ComfyUI, sample: Sample) -> None:
    """RepeatImageBatch, a core node, takes the place of Wan, whose weights have 10 GB."""
    first = next(iter(VideoFile(sample.video).read([0])))
    Image.fromarray(first).save(comfyui.input / "a picture.png")
    graph = graphs.with_landmarks(graphs.quick("lipsync_image_to_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LoadImage", image="a picture.png")
    decode = graphs.node(graph, "VAEDecode")
    picture = [graphs.node(graph, "LoadImage"), 0]
    graph[decode] = {"class_type": "RepeatImageBatch", "inputs": {"image": picture, "amount": SOURCE_FRAMES}}
    path = graphs.the_video(comfyui.outputs(comfyui.run(graphs.needed(graph))))
    made = graphs.probe(path)
    assert (made.width, made.height, made.rate) == (first.shape[1], first.shape[0], Fraction(24))
    assert made.frames == 24 * SAMPLE_SECONDS, "the frames go forwards and backwards for as long as the recording lasts"


def test_workflow_dub_speaks_the_translation(comfyui: ComfyUI, sample: Sample, partner: Partner) -> None:
    """A local stand-in takes the place of the paid services. The new speech is the sound of the video."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_dub"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format="mkv ffv1 lossless")
    path = graphs.the_video(comfyui.outputs(comfyui.wait(comfyui.queue(graph, api_key_comfy_org="a key"))), ".mkv")
    assert VideoFile(path).frame_count == OUTPUT_FRAMES
    np.testing.assert_allclose(read_audio(path).samples, read_audio(sample.audio).samples, atol=1e-4)
    assert TRANSCRIPT in partner.texts["/proxy/openai/v1/responses"], "the transcript is translated"
    assert "into Spanish" in partner.texts["/proxy/openai/v1/responses"]
    assert TRANSLATED in partner.texts[f"/proxy/elevenlabs/v1/text-to-speech/{VOICE}"], "the cloned voice speaks it"


def test_workflow_song_moves_lips_by_voice_only(comfyui: ComfyUI, sample: Sample) -> None:
    """Another voice changes the lips. The song in the output stays the same."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_song"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format="mkv ffv1 lossless")
    _, voice = graphs.nodes(graph, "LoadAudio")
    made = []
    for name in (sample.audio.name, "a pause.wav"):
        graphs.write_speech(comfyui.input / "a pause.wav", (0.2, True), (0.8, False))
        graph[voice]["inputs"]["audio"] = name
        made.append(graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv"))
    last = [next(iter(VideoFile(path).read([OUTPUT_FRAMES - 2]))) for path in made]
    assert (last[0] != last[1]).any(), "the voice is silent there in the second run"
    assert torch.equal(*(read_audio(path).samples for path in made))


def test_workflow_long_video_keeps_video_length(comfyui: ComfyUI, sample: Sample) -> None:
    """The weights are fp8, and the audio is longer than the video."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_long_video"), sample.landmarks.name)
    made = graphs.probe(graphs.the_video(comfyui.outputs(comfyui.run(graph))))
    assert made.frames == SOURCE_FRAMES
    assert made.audio_seconds == pytest.approx(SOURCE_FRAMES / 25, abs=AAC_FRAME_SECONDS)


@pytest.mark.parametrize("path", sorted(graphs.WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_workflow_every_template_has_thumbnail(comfyui: ComfyUI, path: Path) -> None:
    """The page asks for a .jpg beside each template."""
    assert path.stem in comfyui.get("/api/workflow_templates").json()[PACK]
    answer = comfyui.get(f"/api/workflow_templates/{PACK}/{path.stem}.jpg")
    picture = Image.open(BytesIO(answer.content))
    assert (picture.format, picture.width >= 400) == ("JPEG", True)
    assert len(answer.content) < THUMBNAIL_BYTES


def test_workflow_new_seed_reruns_only_sampler(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1, seed=1)
    comfyui.run(graph)
    prompt_id = comfyui.queue(graphs.changed(graph, "LatentSyncSampler", seed=2))
    comfyui.wait(prompt_id)
    ran = {event.data["node"] for event in comfyui.events.of(prompt_id, "executing") if event.data.get("node")}
    assert ran == {graphs.node(graph, "LatentSyncSampler"), graphs.node(graph, "LatentSyncVideoCombine")}


def test_workflow_trial_run_ends_early(comfyui: ComfyUI, sample: Sample) -> None:
    """Sampling needs one window instead of two, and the sound ends with the picture."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", seed=78, preview_seconds=0.4)
    prompt_id = comfyui.queue(graph)
    made = graphs.probe(graphs.the_video(comfyui.outputs(comfyui.wait(prompt_id))))
    assert made.frames == 10
    assert made.audio_seconds == pytest.approx(0.4, abs=AAC_FRAME_SECONDS)
    states = [event.data["nodes"] for event in comfyui.events.of(prompt_id, "progress_state")]
    sampler = graphs.node(graph, "LatentSyncSampler")
    assert max(state[sampler]["max"] for state in states if sampler in state) == 2, "steps of one window"


def test_workflow_reports_progress(comfyui: ComfyUI, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    prompt_id = comfyui.queue(graphs.changed(graph, "LatentSyncSampler", seed=77, steps=2))
    comfyui.wait(prompt_id)
    sampler = graphs.node(graph, "LatentSyncSampler")
    states = [event.data["nodes"] for event in comfyui.events.of(prompt_id, "progress_state")]
    values = [state[sampler]["value"] for state in states if sampler in state]
    steps = 2
    assert values == sorted(values)
    assert values[-1] == WINDOWS * steps
