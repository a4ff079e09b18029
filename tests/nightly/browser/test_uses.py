"""Whole uses of the pack in both versions of ComfyUI's page: the right one of two people, app mode."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import expect

from latentsync.video.video_file import VideoFile
from scripts.browser import LOAD_MS, ComfyPage, opened, program
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SAMPLE_SECONDS
from tests.support.pages import CONNECT, RUN_SECONDS, open_with_samples
from tests.support.paths import REPOSITORY
from tests.support.two_people import write_two_people

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

ARTIFACTS = REPOSITORY / "artifacts" / "browser"
FACE_PREP, VIDEO_COMBINE = "LatentSyncFacePrep", "LatentSyncVideoCombine"
CHANGED = 60
"""Smallest change of a pixel, of 255, that counts: the lips of untrained networks are noise, and h264 loses less."""

TOGGLE_APP_MODE = "() => app.extensionManager.command.execute('Comfy.ToggleLinear')"


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes-2"])
def page(comfyui: ComfyUI, request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    with opened(comfyui.url, nodes_2=request.param) as shown:
        yield shown


@pytest.mark.parametrize(("number", "half"), [(1, "left"), (2, "right")])
def test_typed_number_syncs_that_person(
    page: ComfyPage, comfyui: ComfyUI, sample: Sample, request: pytest.FixtureRequest, number: int, half: str
) -> None:
    """The node draws the border around this number, and only this half of the picture gets new lips."""
    video, landmarks = write_two_people(sample, comfyui.input)
    open_with_samples(page, "lipsync_video")
    page.set_widget("LoadVideo", "file", video.name)
    page.page.evaluate(CONNECT, ["LatentSyncDemoLandmarks", 0, FACE_PREP, "face_landmarks", landmarks.name])
    page.set_widget(FACE_PREP, "face", "leftmost")
    page.set_widget(FACE_PREP, "face_index", number)
    name = request.node.name.translate(str.maketrans("[]-", "___"))
    page.set_widget(VIDEO_COMBINE, "filename_prefix", f"pages/{name}")
    page.run()
    page.video(f"{name}_", RUN_SECONDS)
    page.fit()
    page.picture(ARTIFACTS / f"{name}.png")
    (path,) = (comfyui.output / "pages").glob(f"{name}_*.mp4")
    made, original = (next(iter(VideoFile(each).read([0]))).astype(int) for each in (path, video))
    left, right = (int((side > CHANGED).sum()) for side in np.split(np.abs(made - original).max(axis=2), 2, axis=1))
    changed, kept = (left, right) if half == "left" else (right, left)
    assert changed > 1000
    assert kept == 0


@pytest.mark.parametrize("name", ["lipsync_video", "lipsync_song", "lipsync_two_speakers"])
def test_app_mode_runs_and_shows_the_video(
    page: ComfyPage, sample: Sample, shared: object, request: pytest.FixtureRequest, name: str
) -> None:
    form = json.loads((graphs.WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))["extra"]["linearData"]
    open_with_samples(page, name)
    page.page.evaluate(TOGGLE_APP_MODE)
    for _, widget in form["inputs"]:
        expect(page.page.get_by_text(widget, exact=True).filter(visible=True).first).to_be_visible(timeout=LOAD_MS)
    page.page.get_by_role("button", name="Run", exact=True).click(timeout=LOAD_MS)
    video = page.video(page.prefix(), RUN_SECONDS)
    shown = page.page.locator(f"video[src*='{page.prefix()}']").filter(visible=True)  # a hidden node may have another
    expect(shown.first).to_be_visible(timeout=LOAD_MS)
    page.picture(ARTIFACTS / f"{request.node.name}.png")
    page.page.evaluate(TOGGLE_APP_MODE)
    assert video["seconds"] == pytest.approx(SAMPLE_SECONDS, abs=0.1)
