"""The pack in ComfyUI's own page, in a real browser: a template opens, the help panel has the user's language.

The browser tests of every template and of whole runs are in tests/nightly/browser.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scripts.browser import LOAD_MS, opened, program
from scripts.comfyui import PACK, ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

ARTIFACTS = REPOSITORY / "artifacts" / "browser"
GROWING = re.compile(r"lips_\d|\u53e3\u578b \d|lips|\u53e3\u578b")
"""Sockets that the page adds as others are connected. The template has names of its own for them."""

FACE_PREP = "LatentSyncFacePrep"


def test_browser_opens_a_template(comfyui: ComfyUI, sample: Sample) -> None:
    """No node is marked without the official weights: Load Model looks for them in the run."""
    with opened(comfyui.url) as page:
        cards = page.templates(PACK)
        names = sorted(path.stem for path in graphs.WORKFLOWS.glob("*.json"))
        expect(cards).to_have_count(len(names), timeout=LOAD_MS)
        ids = [card.get_attribute("data-testid") or "" for card in cards.all()]
        assert sorted(each.removeprefix("template-workflow-") for each in ids) == names
        page.page.keyboard.press("Escape")
        page.open_template(PACK, "lipsync_video")
        assert not [node.type for node in page.nodes() if node.red], page.error()
        page.fit()
        page.picture(ARTIFACTS / "opened.png")


def test_browser_offers_weights_that_a_graph_names(comfyui: ComfyUI, sample: Sample, tmp_path: Path) -> None:
    """The page marks Load Model alone, and offers the download."""
    graph = json.loads((graphs.WORKFLOWS / "lipsync_video.json").read_text(encoding="utf-8"))
    (loader,) = (node for node in graph["nodes"] if node["type"] == "LatentSyncLoadModel")
    loader["widgets_values"][3] = "1.5/latentsync_unet.pt"
    file = tmp_path / "named.json"
    file.write_text(json.dumps(graph), encoding="utf-8")
    with opened(comfyui.url) as page:
        page.open_graph(file)
        missing = page.details().get_by_test_id("error-group-missing-model")
        expect(missing).to_contain_text("1.5/latentsync_unet.pt", timeout=LOAD_MS)
        expect(missing.get_by_test_id("missing-model-download")).to_be_enabled(timeout=LOAD_MS)
        assert [node.type for node in page.nodes() if node.red] in ([], ["LatentSyncLoadModel"])
        page.picture(ARTIFACTS / "missing.png")


@pytest.mark.parametrize("locale", ["en", "zh"])
def test_browser_shows_help_in_the_users_language(comfyui: ComfyUI, locale: str) -> None:
    """In Chinese, the titles, inputs and outputs of the nodes are Chinese, too."""
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
        panel = page.help(FACE_PREP)
        expect(panel).to_contain_text(heading.removeprefix("# "), timeout=LOAD_MS)
        expect(panel).to_contain_text(first, timeout=LOAD_MS)
        page.picture(ARTIFACTS / f"help_{locale}.png")
