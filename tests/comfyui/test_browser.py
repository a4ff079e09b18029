"""The pack in ComfyUI's own page, in a real browser: template, run, progress, video, help, language."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.browser import ComfyPage, opened, program
from scripts.comfyui import PACK, REPOSITORY, ComfyUI
from scripts.pictures import pickled_unet
from scripts.sample_clip import Sample
from tests.comfyui import graphs

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

ARTIFACTS = REPOSITORY / "artifacts" / "browser"
RUN_SECONDS = 300.0
GROWING = re.compile(r"(lips|\u53e3\u578b)\d*")  # as many as are wired, and one more; the template names its own
FACE_PREP = "LatentSyncFacePrep"


@pytest.fixture
def official_name(comfyui: ComfyUI) -> Iterator[None]:
    """The file that the templates name, as on a machine with the weights; its content is untrained."""
    path = pickled_unet(comfyui.models)
    yield
    path.unlink()


def open_template(page: ComfyPage, name: str) -> None:
    page.open_template(PACK, name)
    page.set_widget("LatentSyncLoadModel", "version", "1.5")
    page.set_widget("LatentSyncSampler", "steps", 2)


def test_a_template_is_offered_opens_runs_and_shows_the_video(
    comfyui: ComfyUI, sample: Sample, official_name: None, shared: Path
) -> None:
    with opened(comfyui.url) as page:
        cards = page.templates(PACK)
        names = sorted(path.stem for path in graphs.WORKFLOWS.glob("*.json"))
        ids = [card.get_attribute("data-testid") or "" for card in cards.all()]
        assert sorted(each.removeprefix("template-workflow-") for each in ids) == names
        widths = [picture.evaluate("picture => picture.naturalWidth") for picture in cards.locator("img").all()]
        assert min(widths) > 0, "each has its thumbnail"
        page.picture(ARTIFACTS / "templates.png")
        page.page.keyboard.press("Escape")

        open_template(page, "lipsync_video")
        assert not [node for node in page.nodes() if node.red], page.error()
        assert not page.error()
        page.fit()
        page.picture(ARTIFACTS / "opened.png")

        page.set_widget(FACE_PREP, "min_confidence", 0.47)  # faces that another test has found are not looked for again
        page.run()
        video = page.video("LatentSync_", RUN_SECONDS)
        assert (video["width"], video["height"]) == (480, 640)
        assert video["seconds"] == pytest.approx(3, abs=0.1)
        seen = page.progress()
        for node_type in (FACE_PREP, "LatentSyncSampler", "LatentSyncVideoCombine"):
            assert len(set(seen[node_type])) > 2, f"the bar of {node_type} moves"
        page.fit()
        page.picture(ARTIFACTS / "finished.png")


def test_a_model_that_is_missing_is_offered(comfyui: ComfyUI, sample: Sample) -> None:
    """The template names the official file and its address; the tests' models have another name."""
    with opened(comfyui.url) as page:
        page.open_template(PACK, "lipsync_video")
        panel = page.details()
        missing = panel.get_by_test_id("error-group-missing-model")
        assert "1.5/latentsync_unet.pt" in missing.inner_text()
        assert missing.get_by_test_id("missing-model-download").is_enabled()
        page.picture(ARTIFACTS / "missing.png")


def test_a_run_that_fails_says_so_in_the_page(comfyui: ComfyUI, sample: Sample, official_name: None) -> None:
    with opened(comfyui.url) as page:
        open_template(page, "lipsync_video")
        page.set_widget(FACE_PREP, "face_index", 7)
        page.run()
        with pytest.raises(RuntimeError, match="LatentSync Face Prep failed"):
            page.video("LatentSync_", RUN_SECONDS)


def old_graph(old: str) -> dict[str, Any]:
    """A graph in UI format with another pack's lip sync between core nodes, of which the last follows it."""
    return {
        "version": 0.4,
        "last_node_id": 3,
        "last_link_id": 2,
        "nodes": [
            {
                "id": 1,
                "type": "EmptyImage",
                "pos": [50, 100],
                "inputs": [],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
                "widgets_values": [64, 64, 2, 0],
            },
            {
                "id": 2,
                "type": old,
                "pos": [400, 100],
                "inputs": [
                    {"name": "images", "type": "IMAGE", "link": 1},
                    {"name": "audio", "type": "AUDIO", "link": None},
                ],
                "outputs": [
                    {"name": "images", "type": "IMAGE", "links": [2]},
                    {"name": "audio", "type": "AUDIO", "links": []},
                ],
                "widgets_values": [1247, "fixed", 1.5, 20],
            },
            {
                "id": 3,
                "type": "PreviewImage",
                "pos": [800, 100],
                "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
                "outputs": [],
                "widgets_values": [],
            },
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
    }


@pytest.mark.parametrize("old", ["LatentSyncNode", "D_LatentSyncNode"])
def test_another_packs_node_is_replaced_by_ours(comfyui: ComfyUI, old: str, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps(old_graph(old)), encoding="utf-8")
    with opened(comfyui.url) as page:
        page.open_graph(file)
        assert [node.type for node in page.nodes() if node.red] == [old]
        page.replace_missing()
        page.page.wait_for_function("() => app.graph.nodes.some(node => node.type === 'LatentSyncToImages')")
        assert not [node for node in page.nodes() if node.red]
        assert page.wires() == {("LatentSyncToImages", "images", "PreviewImage", "images")}
        page.picture(ARTIFACTS / f"replaced_{old}.png")


@pytest.mark.parametrize("locale", ["en", "zh"])
def test_the_help_panel_opens_in_the_users_language(comfyui: ComfyUI, locale: str) -> None:
    """And with Chinese chosen, titles, inputs and outputs are Chinese."""
    words = json.loads((REPOSITORY / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))
    folder = REPOSITORY / "web" / "docs"
    page_file = folder / f"{FACE_PREP}.md" if locale == "en" else folder / FACE_PREP / f"{locale}.md"
    heading, _, first = page_file.read_text(encoding="utf-8").split("\n")[:3]
    with opened(comfyui.url, locale) as page:
        page.open_graph(graphs.WORKFLOWS / "lipsync_video.json")
        ours = [node for node in page.nodes() if node.type.startswith("LatentSync")]
        assert {node.type: node.title for node in ours} == {
            node.type: words[node.type]["display_name"] for node in ours
        }
        for node in ours:
            named = {**words[node.type].get("inputs", {}), **words[node.type].get("outputs", {})}
            missing = {entry["name"] for entry in named.values()} - set(node.labels)
            assert not {name for name in missing if not GROWING.fullmatch(name)}, node.type
        shown = page.help(FACE_PREP).inner_text()
        page.picture(ARTIFACTS / f"help_{locale}.png")
    assert heading.removeprefix("# ") in shown
    assert first in shown
