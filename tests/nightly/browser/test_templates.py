"""Templates in ComfyUI's own page, in a real browser: each opens, one runs and shows its video, one fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.blueprints import BLUEPRINTS, FOLDER, Blueprint
from scripts.browser import LOAD_MS, ComfyPage, opened, program
from scripts.comfyui import PACK, ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import SAMPLE_SECONDS
from tests.support.pages import RUN_SECONDS, choose_samples
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

ARTIFACTS = REPOSITORY / "artifacts" / "browser"
FACE_PREP = "LatentSyncFacePrep"
TEMPLATES = sorted(path.stem for path in graphs.WORKFLOWS.glob("*.json"))
LOADED = "picture => new Promise(done => picture.complete ? done() : (picture.onload = picture.onerror = done))"


def open_template(page: ComfyPage, name: str) -> None:
    page.open_template(PACK, name)
    choose_samples(page)


def test_template_cards_have_thumbnails(comfyui: ComfyUI, sample: Sample) -> None:
    with opened(comfyui.url) as page:
        cards = page.templates(PACK)
        expect(cards).to_have_count(len(TEMPLATES), timeout=LOAD_MS)
        for picture in cards.locator("img").all():
            picture.evaluate(LOADED)
            assert picture.evaluate("picture => picture.naturalWidth") > 0
        page.picture(ARTIFACTS / "templates.png")


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_opens_without_unknown_nodes(comfyui: ComfyUI, sample: Sample, name: str) -> None:
    with opened(comfyui.url) as page:
        page.open_template(PACK, name)
        assert not [node.type for node in page.nodes() if node.red and node.type.startswith("LatentSync")]
        page.fit()
        page.picture(ARTIFACTS / f"opened_{name}.png")


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda blueprint: blueprint.workflow)
def test_blueprint_opens_as_one_node(comfyui: ComfyUI, sample: Sample, blueprint: Blueprint) -> None:
    """The page accepts the definition, shows the widgets, and sends the inner nodes."""
    with opened(comfyui.url) as page:
        page.open_graph(FOLDER / f"{blueprint.name}.json")
        (node,) = page.nodes()
        assert (node.title, node.red) == (blueprint.name, False)
        assert node.labels == [*blueprint.sockets, *blueprint.widgets, *blueprint.outputs]
        assert not page.error()
        sent = page.page.evaluate("async () => (await app.graphToPrompt()).output")
        assert len(sent) == 5
        assert all(part["class_type"].startswith("LatentSync") for part in sent.values())
        page.fit()
        page.picture(ARTIFACTS / f"blueprint_{blueprint.workflow}.png")


def test_template_runs_and_shows_its_video(comfyui: ComfyUI, sample: Sample, shared: Path) -> None:
    with opened(comfyui.url) as page:
        open_template(page, "lipsync_video")
        assert not [node for node in page.nodes() if node.red], page.error()
        assert not page.error()
        page.set_widget(FACE_PREP, "min_confidence", 0.47)  # other than in other tests: detection must run
        page.run()
        video = page.video("LatentSync_", RUN_SECONDS)
        assert (video["width"], video["height"]) == (480, 640)
        assert video["seconds"] == pytest.approx(SAMPLE_SECONDS, abs=0.1)
        seen = page.progress()
        for node_type in (FACE_PREP, "LatentSyncSampler", "LatentSyncVideoCombine"):
            assert len(set(seen[node_type])) > 1, f"the bar of {node_type} moves"
        page.fit()
        page.picture(ARTIFACTS / "finished.png")


def test_template_failure_is_reported_in_the_page(comfyui: ComfyUI, sample: Sample) -> None:
    with opened(comfyui.url) as page:
        open_template(page, "lipsync_video")
        page.set_widget(FACE_PREP, "face_index", 7)
        page.run()
        with pytest.raises(RuntimeError, match="LatentSync Face Prep failed"):
            page.video("LatentSync_", RUN_SECONDS)
