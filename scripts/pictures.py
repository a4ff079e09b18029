"""The templates' thumbnails: each workflow opened and run in a real ComfyUI.

The networks are untrained, so the new mouths are noise. The image-to-video workflow is opened and not run: Wan's
weights are not at hand.

Usage: python -m scripts.pictures [WORKFLOW ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from latentsync.weights import loader
from latentsync.weights.catalog import MODELS
from scripts.browser import ComfyPage, opened
from scripts.comfyui import REPOSITORY, ComfyUI
from scripts.demo import place_landmarker
from scripts.sample_clip import Sample, make_sample
from tests.support.synthetic_models import write_models

WORKFLOWS = REPOSITORY / "workflows"
ALL = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
PACK_FOLDER = "latentsync"
NOT_RUN = "lipsync_image_to_video"
TWO_PEOPLE = "lipsync_two_speakers"
THUMBNAIL_PX = 640
MARGIN_PX = 150  # the page's bars and notes lie over the canvas's edge
BORDER_PX = 12
JPEG_QUALITY = 82
STEPS = 1  # noise does not get better with more of them
SECONDS = 1.5
RUN_SECONDS = 600.0
SETTLE_MS = 2500  # previews are drawn, and the note that a job is done goes away


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflows", nargs="*", default=ALL, help="some of them; by default all")
    names = parser.parse_args().workflows
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        sample = make_sample(base / "input", SECONDS)
        two_people(sample)
        a_picture(sample)
        stand_ins(base / "models")
        write_models(base / "models")
        pickled_unet(base / "models")
        place_landmarker(base / "models")
        with ComfyUI(base) as comfyui:
            for name in names:
                take(comfyui, name)


def pickled_unet(models: Path) -> Path:
    """The untrained UNet of a models folder once more, under the official file's name, which the templates hold."""
    path = models / MODELS["1.5"].unet.path
    read = loader.read(path.with_suffix(".safetensors"))
    torch.save({**read.metadata, "state_dict": dict(read.tensors)}, path)
    return path


def two_people(sample: Sample) -> Path:
    """The sample beside its mirror image."""
    source = VideoFile(sample.video)
    path = sample.video.with_name("two_people.mp4")
    size = {"height": source.height, "width": 2 * source.width}
    with VideoWriter(path, rate=source.rate, **size) as writer:
        for frame in source.read(range(source.frame_count)):
            writer.write(np.concatenate([frame, frame[:, ::-1]], axis=1))
    return path


def a_picture(sample: Sample) -> None:
    """The sample's first frame, under the name that ComfyUI's own graphs have for a picture."""
    first = next(iter(VideoFile(sample.video).read([0])))
    Image.fromarray(first).save(sample.video.with_name("example.png"))


def stand_ins(models: Path) -> None:
    """Empty files for the models of others in the workflow that is not run: the page only looks for their names."""
    nodes = json.loads((WORKFLOWS / f"{NOT_RUN}.json").read_text(encoding="utf-8"))["nodes"]
    named = [model for node in nodes for model in node["properties"].get("models", [])]
    for model in named:
        if model["directory"] != PACK_FOLDER:
            path = models / model["directory"] / model["name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def take(comfyui: ComfyUI, name: str) -> None:
    """A workflow's thumbnail."""
    with opened(comfyui.url) as page:
        show(page, name)
        picture = taken(page)
    save(picture, WORKFLOWS / f"{name}.jpg", THUMBNAIL_PX)


def show(page: ComfyPage, name: str) -> None:
    """Open a workflow and run it; the version of weights that nobody knows must be said."""
    page.open_graph(WORKFLOWS / f"{name}.json")
    page.page.wait_for_timeout(SETTLE_MS)
    if name == NOT_RUN:
        return
    if name == TWO_PEOPLE:
        page.set_widget("LoadVideo", "file", "two_people.mp4")
    page.set_widget("LatentSyncLoadModel", "version", "1.5")
    page.set_widget("LatentSyncSampler", "steps", STEPS)
    page.run()
    page.video(page.prefix(), RUN_SECONDS)


def taken(page: ComfyPage) -> Image.Image:
    """The graph alone."""
    place = page.fit(MARGIN_PX)
    page.page.wait_for_timeout(SETTLE_MS)
    corner = {axis: place[axis] - BORDER_PX for axis in ("x", "y")}
    return screenshot(page, {**corner, **{side: place[side] + 2 * BORDER_PX for side in ("width", "height")}})


def screenshot(page: ComfyPage, clip: dict[str, float] | None = None) -> Image.Image:
    with tempfile.TemporaryDirectory() as folder:
        picture = Image.open(page.picture(Path(folder) / "page.png", clip))
        return picture.convert("RGB")


def save(picture: Image.Image, path: Path, width_px: int) -> None:
    height_px = round(picture.height * width_px / picture.width)
    small = picture.resize((width_px, height_px), Image.Resampling.LANCZOS)
    small.save(path, quality=JPEG_QUALITY, optimize=True)
    print(path.relative_to(REPOSITORY), f"{path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
