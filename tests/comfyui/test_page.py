"""The pack in both versions of ComfyUI's page, which draws nodes on a canvas or as HTML (Nodes 2.0)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from scripts.browser import LOAD_MS, ComfyPage, opened, program
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.pages import open_with_samples, overlaps_after_run
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

ARTIFACTS = REPOSITORY / "artifacts" / "browser"
PHRASES = ("lip sync", "lipsync", "wav2lip", "dubbing", "musetalk")
FIRST_RESULTS = 8
"""They are visible without scrolling. Nodes of paid services and our blueprints share some phrases."""
OUR_TYPES = {"LATENTSYNC_MODEL", "LATENTSYNC_FACE_TRACK", "LATENTSYNC_AUDIO_EMBEDS", "LATENTSYNC_LIPS"}
HELP = sorted(path.stem for path in (REPOSITORY / "web" / "docs").glob("*.md"))
MAIN_NODES = (
    "LatentSyncLoadModel",
    "LatentSyncFacePrep",
    "LatentSyncAudioEmbed",
    "LatentSyncSampler",
    "LatentSyncVideoCombine",
)
SMALLEST_TEXT_PX = 9
FACE_PREP, SAMPLER = "LatentSyncFacePrep", "LatentSyncSampler"

LINK_COLORS = """() => Object.fromEntries([...app.graph.links.values()].map(link =>
    [link.type, app.canvas.constructor.link_type_colors[link.type]]))"""
DOT_COLORS = """() => Object.fromEntries(app.graph.nodes.flatMap(node => node.outputs.map((output, slot) => {
    const dot = document.querySelector(`[data-slot-key="${node.id}-out-${slot}"]`);
    const color = dot ? getComputedStyle(dot).backgroundColor : output.renderingColor(app.canvas.colourGetter);
    return [output.type, color];
})))"""
ADD = "([type]) => { app.graph.clear(); app.graph.add(LiteGraph.createNode(type)) }"
SHOWN_INPUTS = """() => {
    const [node] = app.graph.nodes, shown = document.querySelector(`[data-node-id="${node.id}"]`);
    return node.widgets.filter(widget => shown ? shown.innerText.includes(widget.name) : node.isWidgetVisible(widget))
        .map(widget => widget.name);
}"""
CONNECT_NUMBER = """([input]) => {
    const [node] = app.graph.nodes, number = LiteGraph.createNode('PrimitiveInt');
    app.graph.add(number);
    number.connect(0, node, node.findInputSlot(input));
}"""
HIDE = """inputs => {
    'use strict';
    const widget = app.graph.nodes[0].widgets.find(each => each.name === inputs[0]);
    widget.advanced = widget.hidden = true;
}"""
TOO_WIDE = """([panel]) => [...panel.querySelectorAll('*')].filter(part => part.scrollWidth > panel.clientWidth)
    .map(part => part.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes-2"])
def page(comfyui: ComfyUI, request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    """One page for the tests of this file: opening it takes longer than most of them."""
    with opened(comfyui.url, nodes_2=request.param) as shown:
        yield shown


@pytest.mark.parametrize("phrase", PHRASES)
def test_search_finds_the_sampler(page: ComfyPage, phrase: str) -> None:
    found = page.search(phrase)
    expect(found.filter(has_text="LatentSync Sampler")).to_have_count(1, timeout=LOAD_MS)
    shown = found.all_inner_texts()[:FIRST_RESULTS]
    page.page.keyboard.press("Escape")
    expect(found).to_have_count(0, timeout=LOAD_MS)
    assert [text for text in shown if text.startswith("LatentSync Sampler")], shown


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_socket_types_have_distinct_colors(page: ComfyPage, palette: str) -> None:
    """Of links and dots, also after the user changes the palette, which clears colors that it does not know."""
    page.open_graph(graphs.WORKFLOWS / "lipsync_video.json")
    page.set_palette(palette)
    page.fit()
    for colors in page.page.evaluate(LINK_COLORS), page.page.evaluate(DOT_COLORS):
        assert colors.keys() >= OUR_TYPES
        assert all(colors[each] for each in OUR_TYPES)
        assert len({colors[each] for each in OUR_TYPES} | {colors.get("VIDEO")}) == len(OUR_TYPES) + 1
    page.picture(ARTIFACTS / f"sockets_{palette}.png")
    page.set_palette("dark")


def test_advanced_inputs_are_shown_on_demand(page: ComfyPage, request: pytest.FixtureRequest) -> None:
    """The canvas also shows an advanced input that is connected. It never shows an input that an extension hides."""
    is_canvas = "nodes-2" not in request.node.name
    page.page.evaluate(ADD, [FACE_PREP])
    page.page.wait_for_function(f"() => ({SHOWN_INPUTS})().includes('face_index')", timeout=LOAD_MS)
    assert {"max_gap", "max_yaw"}.isdisjoint(page.page.evaluate(SHOWN_INPUTS))
    if is_canvas:
        page.page.evaluate(HIDE, ["min_confidence"])
        page.page.evaluate(CONNECT_NUMBER, ["max_gap"])
        assert {"max_gap", "max_yaw"} & set(page.page.evaluate(SHOWN_INPUTS)) == {"max_gap"}
    page.page.evaluate("() => app.graph.nodes[0].toggleAdvanced()")
    page.page.wait_for_function(f"() => ({SHOWN_INPUTS})().includes('max_yaw')", timeout=LOAD_MS)
    assert ("min_confidence" in page.page.evaluate(SHOWN_INPUTS)) == (not is_canvas)


@pytest.mark.parametrize("node_type", HELP)
def test_help_fits_its_panel(page: ComfyPage, node_type: str) -> None:
    page.page.evaluate(ADD, [node_type])
    panel = page.help(node_type)
    expect(panel.get_by_role("heading", name="Inputs")).to_be_visible(timeout=LOAD_MS)
    assert panel.evaluate("(panel) => (" + TOO_WIDE + ")([panel])") == []


def test_nodes_do_not_overlap_after_a_run(page: ComfyPage, sample: Sample, request: pytest.FixtureRequest) -> None:
    """Nodes grow when they show pictures and text. tests/nightly/browser does the same with each template."""
    open_with_samples(page, "lipsync_video")
    assert overlaps_after_run(page) == []
    page.picture(ARTIFACTS / f"{request.node.name}.png")


@pytest.mark.parametrize("name", ["lipsync_video", "lipsync_long_video", "lipsync_song", "lipsync_occlusion"])
def test_text_is_readable_in_fit_view(page: ComfyPage, name: str) -> None:
    """In a window of 1600 x 900 pixels. The other templates have more nodes than fit at that scale."""
    page.open_graph(graphs.WORKFLOWS / f"{name}.json")
    page.fit()
    shown = {node.type for node in page.nodes()} & set(MAIN_NODES)
    assert {node: page.font_px(node) for node in shown if page.font_px(node) < SMALLEST_TEXT_PX} == {}


@pytest.mark.parametrize(
    ("bypassed", "sentence"),
    [
        (FACE_PREP, "LatentSync Sampler is missing a required input: face_track"),
        (SAMPLER, "LatentSync Video Combine is missing a required input: lips.lips_1"),
    ],
)
def test_page_names_the_input_of_a_bypassed_node(page: ComfyPage, sample: Sample, bypassed: str, sentence: str) -> None:
    """ComfyUI passes nothing through a node whose inputs have other types than its outputs."""
    open_with_samples(page, "lipsync_video")
    page.bypass(bypassed)
    page.run()
    expect(page.page.get_by_test_id("error-overlay")).to_contain_text(sentence, timeout=LOAD_MS)
    assert [node.title for node in page.nodes() if node.red] == [sentence.partition(" is missing")[0]]
