"""The optional groups of the templates in a real ComfyUI: another mask for objects, and more frames per second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import SELFIE_SEGMENTER
from scripts.comfyui import ComfyUI, ExecutionFailedError, InvalidPromptError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES, SAMPLE_SECONDS, SOURCE_FRAMES
from tests.support.green_bar import FIRST_FRAME, write_green_bar
from tests.support.tiny_interpolator import write_tiny_interpolator
from tests.support.toy_segmenter import write_toy_segmenter

FACE_PREP, COMBINE = "LatentSyncFacePrep", "LatentSyncVideoCombine"
LOSSLESS = "mkv ffv1 lossless"
AAC_FRAME_SECONDS = 1024 / 44100  # a decoder may hand out the last frame whole


def test_occlusion_keeps_the_object(comfyui: ComfyUI, base: Path, sample: Sample) -> None:
    """Face Prep finds the bar with a stand-in for the segmenter. Then a mask of the bar takes the place of SAM 3."""
    covered, model = comfyui.input / "bar.mkv", base / "models" / SELFIE_SEGMENTER.path
    rows, columns = write_green_bar(sample, covered)
    bar = np.zeros((VideoFile(covered).height, VideoFile(covered).width))
    bar[rows, columns] = 1
    alternative = graphs.changed(graphs.turned_on("lipsync_occlusion", comfyui), FACE_PREP, occlusion="off")
    Image.fromarray(np.uint8(255 * bar)).save(comfyui.input / "bar.png")
    loaded = {"class_type": "LoadImageMask", "inputs": {"image": "bar.png", "channel": "red"}}
    alternative[graphs.node(alternative, "SAM3_TrackToMask")] = loaded
    write_toy_segmenter(model)
    try:
        for form in (graphs.load("lipsync_occlusion"), graphs.needed(alternative)):
            graph = graphs.with_landmarks(graphs.changed(form, "LoadVideo", file=covered.name), sample.landmarks.name)
            graph = graphs.changed(graphs.changed(graph, "LatentSyncSampler", steps=1), COMBINE, format=LOSSLESS)
            made = VideoFile(graphs.the_video(comfyui.outputs(comfyui.run(graph)), ".mkv"))
            shown = range(FIRST_FRAME, SOURCE_FRAMES)
            for frame, original in zip(made.read(shown), VideoFile(covered).read(shown), strict=True):
                difference = np.abs(frame.astype(int) - original).max(axis=2)
                assert difference[rows, columns].max() <= 1
                assert (difference > 30).sum() > 500, "beside the object, untrained lips are noise"
    finally:
        model.unlink()


def test_occlusion_sam_group_is_valid(comfyui: ComfyUI, sample: Sample) -> None:
    """ComfyUI accepts every link and value of the group. Only the content of the model file is wrong here."""
    graph = graphs.turned_on("lipsync_occlusion", comfyui)
    graph["shown"] = {"class_type": "MaskPreview", "inputs": {"mask": [graphs.node(graph, "SAM3_TrackToMask"), 0]}}
    file = comfyui.models / "checkpoints" / graph[graphs.node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"]
    with pytest.raises(InvalidPromptError, match=file.name):
        comfyui.queue(graph)
    file.parent.mkdir(exist_ok=True)
    save_file({"weight": torch.zeros(1)}, file)
    try:
        with pytest.raises(ExecutionFailedError) as failed:
            comfyui.run(graphs.needed(graph, "MaskPreview"))
    finally:
        file.unlink()
    assert failed.value.node_type == "CheckpointLoaderSimple"


def test_images_doubles_the_frame_rate(comfyui: ComfyUI, sample: Sample) -> None:
    """A network of known output: each new frame is the mean of its neighbors. The sound keeps its length."""
    graph = graphs.with_landmarks(graphs.turned_on("lipsync_images", comfyui), sample.landmarks.name)
    loader = graph[graphs.node(graph, "FrameInterpolationModelLoader")]
    model = write_tiny_interpolator(comfyui.models / "frame_interpolation" / loader["inputs"]["model_name"])
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    made, doubled = ([graphs.node(graph, name), 0] for name in ("LatentSyncToImages", "FrameInterpolate"))
    graphs.save(graph, "doubled", {"made": made}, first=OUTPUT_FRAMES - 3, length=3)
    graphs.save(graph, "doubled", {"doubled": doubled}, first=2 * OUTPUT_FRAMES - 6, length=7)
    try:
        path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    finally:
        model.unlink()
    film = graphs.probe(path)
    assert (film.rate, film.frames) == (50, 2 * OUTPUT_FRAMES + 1)
    assert film.audio_seconds == pytest.approx(SAMPLE_SECONDS, abs=AAC_FRAME_SECONDS)
    made, doubled = (np.array(graphs.pictures(comfyui.output / "doubled", name), int) for name in ("made", "doubled"))
    np.testing.assert_array_equal(doubled[:5:2], made)
    np.testing.assert_array_equal(doubled[6], made[2])
    assert np.abs(doubled[1:6:2] - (made + made[[1, 2, 2]]) / 2).max() <= 1
