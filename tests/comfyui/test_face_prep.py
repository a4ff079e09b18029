"""Face Prep in a real ComfyUI: its preview, its report and its cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentsync.faces.report import CHOSEN_RGB, TINT_OPACITY, TINT_RGB
from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import CLIPSEG, SELFIE_SEGMENTER
from scripts.comfyui import ComfyUI, ExecutionFailedError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SOURCE_FRAMES
from tests.support.green_bar import FIRST_FRAME, write_green_bar
from tests.support.tiny_clipseg import write_tiny_clipseg
from tests.support.toy_segmenter import write_toy_segmenter
from tests.support.two_people import write_two_people

FACE_PREP = "LatentSyncFacePrep"
TINTED_GREEN = np.round(TINT_OPACITY * np.array(TINT_RGB) + (1 - TINT_OPACITY) * np.array([0, 255, 0]))


def test_face_prep_shows_crops_and_report(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), FACE_PREP, min_confidence=0.45)
    shown = comfyui.run(graphs.needed(graph, FACE_PREP))["outputs"][graphs.node(graph, FACE_PREP)]
    assert [image["type"] for image in shown["images"]] == ["temp"]
    assert f"1 (chosen): {SOURCE_FRAMES} of {SOURCE_FRAMES} frames" in shown["text"][0]


def test_face_prep_detects_once_per_video(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    assert shared
    graph = graphs.changed(graphs.quick("lipsync_video"), FACE_PREP, min_confidence=0.55)
    first = graphs.node(graph, FACE_PREP)
    graph["second"] = {
        "class_type": FACE_PREP,
        "inputs": {**graph[first]["inputs"], "face": "leftmost", "max_gap": 3},
    }
    graph["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["second", 2]}}
    prompt_id = comfyui.queue(graph)
    comfyui.wait(prompt_id)
    states = [event.data["nodes"] for event in comfyui.events.of(prompt_id, "progress_state")]
    longest = [max((state[node]["max"] for state in states if node in state), default=0) for node in (first, "second")]
    # ComfyUI tells of a node that counted nothing as one step, or not at all.
    assert min(longest) <= 1
    assert max(longest) == SOURCE_FRAMES


def test_face_prep_runs_alone(comfyui: ComfyUI, sample: Sample) -> None:
    """The page's run button of a node sends the node and what it needs."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, FACE_PREP, max_gap=5)
    alone = graphs.needed(graph, FACE_PREP)
    assert {node["class_type"] for node in alone.values()} == {"LoadVideo", "LatentSyncDemoLandmarks", FACE_PREP}
    start = len(comfyui.events)
    prompt_id = comfyui.queue(alone)
    shown = comfyui.wait(prompt_id)["outputs"][graphs.node(graph, FACE_PREP)]
    (image,) = comfyui.outputs({"outputs": {"alone": {"images": shown["images"]}}})
    border = np.asarray(Image.open(image).convert("RGB"))[-4:, 40:-4]
    assert np.abs(border.astype(int) - CHOSEN_RGB).max() <= 1
    text = comfyui.events.wait_for(lambda event: event.type == "text", start=start)
    summary = f"Person 1 of 1, in {SOURCE_FRAMES} of {SOURCE_FRAMES} frames"
    assert text.data == {"node": graphs.node(graph, FACE_PREP), "text": f"{summary}\n{shown['text'][0]}"}


def test_face_prep_marks_its_own_choice_of_two(comfyui: ComfyUI, sample: Sample) -> None:
    """In the template of two speakers, the preview of each Face Prep frames the person that it selects.

    The left person has natural colors: more red than blue. The right person has blue skin.
    """
    video, landmarks = write_two_people(sample, comfyui.input)
    graph = graphs.with_landmarks(graphs.quick("lipsync_two_speakers"), landmarks.name)
    graph = graphs.changed(graph, "LoadVideo", file=video.name)
    left_node, right_node = graphs.nodes(graph, FACE_PREP)
    entry = comfyui.run(graphs.needed(graph, FACE_PREP))
    for node, is_red in ((left_node, True), (right_node, False)):
        pages = comfyui.outputs({"outputs": {"shown": {"images": entry["outputs"][node]["images"]}}})
        crops = [np.asarray(Image.open(path).convert("RGB")).astype(int) for path in pages]
        framed = [bool(np.abs(crop[-4:, 40:-4] - CHOSEN_RGB).max() <= 1) for crop in crops]
        faces = [crop[64:-64, 64:-64].mean(axis=(0, 1)) for crop in crops]
        assert framed == [True, False], "each numbers its own choice 1"
        assert [red > blue for red, _, blue in faces] == [is_red, not is_red]
        assert f"1 (chosen): {SOURCE_FRAMES} of {SOURCE_FRAMES} frames" in entry["outputs"][node]["text"][0]


def test_face_prep_number_in_the_preview_is_synced(comfyui: ComfyUI, sample: Sample) -> None:
    """Type the number of the other person: only that half of the picture changes."""
    video, landmarks = write_two_people(sample, comfyui.input)
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), landmarks.name)
    graph = graphs.changed(graph, "LoadVideo", file=video.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format="mkv ffv1 lossless")
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1, preview_seconds=0.2)
    original = next(iter(VideoFile(video).read([0]))).astype(int)
    for number, half in ((1, "left"), (2, "right")):
        entry = comfyui.run(graphs.changed(graph, FACE_PREP, face="leftmost", face_index=number))
        made = next(iter(VideoFile(graphs.the_video(comfyui.outputs(entry), ".mkv")).read([0]))).astype(int)
        left, right = np.split(np.abs(made - original).max(axis=2), 2, axis=1)
        changed, kept = (left, right) if half == "left" else (right, left)
        assert (changed > 30).sum() > 1000, "untrained lips are noise"
        assert kept.max() == 0, half


def test_previews_come_back_after_a_reload(comfyui: ComfyUI, sample: Sample) -> None:
    """The page asks for the same prompt again: nothing runs, and each preview is sent again."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    comfyui.run(graph)
    again = comfyui.run(graph)["outputs"]
    for node_type in (FACE_PREP, "LatentSyncAudioEmbed"):
        assert again[graphs.node(graph, node_type)]["images"], node_type


def test_face_prep_finds_an_object_in_front_of_the_mouth(comfyui: ComfyUI, base: Path, sample: Sample) -> None:
    """Without the model, the sentence. With a file of known output, the object stays in front of the new mouth."""
    covered, model = comfyui.input / "covered.mkv", base / "models" / SELFIE_SEGMENTER.path
    rows, columns = write_green_bar(sample, covered)
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LoadVideo", file=covered.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format="mkv ffv1 lossless")
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    graph = graphs.changed(graph, FACE_PREP, occlusion="auto")
    with pytest.raises(ExecutionFailedError, match="Switch on download_missing in Face Prep") as failed:
        comfyui.run(graph)
    assert failed.value.node_type == FACE_PREP
    assert SELFIE_SEGMENTER.url in failed.value.exception_message
    write_toy_segmenter(model)
    try:
        entry = comfyui.run(graph)
    finally:
        model.unlink()
    shown = entry["outputs"][graphs.node(graph, FACE_PREP)]
    assert f"object in front of the mouth: {FIRST_FRAME}-{SOURCE_FRAMES - 1}" in shown["text"][0]
    _, tinted = comfyui.outputs({"outputs": {"shown": {"images": shown["images"]}}})
    pixels = np.asarray(Image.open(tinted).convert("RGB")).astype(int)
    is_tinted = np.abs(pixels - TINTED_GREEN).max(axis=-1) < 8
    assert 0.02 < is_tinted.mean() < 0.5
    made = VideoFile(graphs.the_video(comfyui.outputs(entry), ".mkv"))
    frames = range(FIRST_FRAME, SOURCE_FRAMES)
    for frame, original in zip(made.read(frames), VideoFile(covered).read(frames), strict=True):
        difference = np.abs(frame.astype(int) - original).max(axis=2)
        assert difference[rows, columns].max() <= 1
        assert (difference > 30).sum() > 500, "beside the object, untrained lips are noise"


def test_face_prep_searches_by_text_with_comfyuis_memory(comfyui: ComfyUI, base: Path, sample: Sample) -> None:
    """With a tiny untrained CLIPSeg: its scores mean nothing, but every stage runs."""
    model = base / "models" / CLIPSEG.path
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    alone = graphs.needed(graphs.changed(graph, FACE_PREP, occlusion="fine", download_missing=True), FACE_PREP)
    with pytest.raises(ExecutionFailedError, match="does not download this file") as failed:
        comfyui.run(alone)
    assert CLIPSEG.url in failed.value.exception_message
    write_tiny_clipseg(model)
    try:
        shown = comfyui.run(alone)["outputs"][graphs.node(alone, FACE_PREP)]
    finally:
        model.unlink()
    assert "object in front of the mouth: " in shown["text"][0]
