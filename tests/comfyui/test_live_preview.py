"""The live preview of the Sampler in a real ComfyUI: its text, its images, and that it changes nothing."""

from __future__ import annotations

import re
from io import BytesIO
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from latentsync.faces.alignment import crop_size
from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI
from scripts.comfyui_events import Event
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import RESOLUTION, WINDOWS

SAMPLER = "LatentSyncSampler"
STEPS = 2


class Run(NamedTuple):
    """The pixels of the lossless video, and the events of the run."""

    pixels: bytes
    events: list[Event]


def run(comfyui: ComfyUI, sample: Sample, seed: int, preview_method: str) -> Run:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, SAMPLER, steps=STEPS, seed=seed)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", format="mkv ffv1 lossless", save_record=False)
    start = len(comfyui.events)
    entry = comfyui.wait(comfyui.queue(graph, preview_method=preview_method))
    path = graphs.the_video(comfyui.outputs(entry), ".mkv")
    video = VideoFile(path)
    pixels = b"".join(frame.tobytes() for frame in video.read(range(video.frame_count)))
    return Run(pixels, list(comfyui.events)[start:])


def images(events: list[Event]) -> list[Image.Image]:
    return [Image.open(BytesIO(event.data["image"])) for event in events if event.type == "preview"]


def texts(events: list[Event]) -> list[str]:
    return [event.data["text"] for event in events if event.type == "text"]


@pytest.fixture(scope="module")
def with_images(comfyui: ComfyUI, sample: Sample) -> Run:
    return run(comfyui, sample, 300, "auto")


@pytest.fixture(scope="module")
def without_images(comfyui: ComfyUI, sample: Sample, with_images: Run) -> Run:
    """The same prompt, with ComfyUI's previews off, after ComfyUI forgot the first run."""
    comfyui.free()
    return run(comfyui, sample, 300, "none")


def test_live_preview_decodes_one_image_per_window(with_images: Run) -> None:
    shown = images(with_images.events)
    width, height = crop_size(RESOLUTION)
    assert [image.width / image.height for image in shown] == WINDOWS * [width / height], "ComfyUI enlarges it"
    assert all(len(np.unique(np.asarray(image))) > 10 for image in shown), "noise, not one flat color"
    assert len({image.tobytes() for image in shown}) == WINDOWS, "each window has another image"


def test_live_preview_says_window_and_step(without_images: Run) -> None:
    said = [text for text in texts(without_images.events) if text.startswith("Window")]
    positions = [f"Window {window} of {WINDOWS}, step {step} of {STEPS}" for window in (1, 2) for step in (1, 2)]
    assert [re.sub(", about .*", "", text) for text in said] == positions
    assert [bool(re.search(r", about \d+ s left$", text)) for text in said] == [False, True, True, False]


def test_live_preview_does_not_change_the_result(
    comfyui: ComfyUI, sample: Sample, with_images: Run, without_images: Run
) -> None:
    """The same pixels with previews and without them, and others with another seed."""
    assert not images(without_images.events)
    assert without_images.pixels == with_images.pixels
    assert run(comfyui, sample, 301, "none").pixels != with_images.pixels
