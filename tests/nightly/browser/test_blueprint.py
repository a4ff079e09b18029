"""A subgraph blueprint in both versions of ComfyUI's page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from scripts.blueprints import BLUEPRINTS
from scripts.browser import LOAD_MS, SELECTIONS, ComfyPage, opened, program
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support.comfyui_server import SAMPLE_SECONDS
from tests.support.pages import CONNECT, RUN_SECONDS
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

ARTIFACTS = REPOSITORY / "artifacts" / "browser"
CANVAS_MIDDLE_PX = (600, 450)
FINISH_BLUEPRINT = """([name, inner_prefix, prefix]) => {
    const blueprint = app.graph.nodes.find(node => node.title === name), save = LiteGraph.createNode('SaveVideo');
    const set = (node, values) => node.widgets.forEach(part => { part.value = values[part.name] ?? part.value });
    for (const inner of blueprint.subgraph.nodes) set(inner, {steps: 2, filename_prefix: inner_prefix});
    app.graph.add(save);
    set(save, {filename_prefix: prefix});
    blueprint.connect(0, save, save.findInputSlot('video'));
}"""


@pytest.fixture(params=[False, True], ids=["canvas", "nodes-2"])
def page(comfyui: ComfyUI, request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    with opened(comfyui.url, nodes_2=request.param) as shown:
        yield shown


def test_blueprint_is_found_placed_and_run(
    page: ComfyPage, sample: Sample, shared: object, request: pytest.FixtureRequest
) -> None:
    """As one node between core nodes. Save Video shows the result, and in Nodes 2.0 the blueprint shows it, too."""
    name = BLUEPRINTS[0].name
    page.page.evaluate("() => app.graph.clear()")
    page.search("lip sync").filter(has_text=name).first.click(timeout=LOAD_MS)
    page.page.mouse.move(*CANVAS_MIDDLE_PX, steps=5)
    page.page.wait_for_function("() => app.graph.nodes[0]?.flags.ghost", timeout=LOAD_MS)
    for _ in range(SELECTIONS):  # the page can overlook a click just after the node appears
        page.page.mouse.click(*CANVAS_MIDDLE_PX)
        with suppress(PlaywrightTimeoutError):
            page.page.wait_for_function("() => !app.graph.nodes[0].flags.ghost", timeout=LOAD_MS / SELECTIONS)
            break
    else:
        pytest.fail("the page does not place the blueprint")
    page.page.evaluate(CONNECT, ["LoadVideo", 0, name, "video", sample.video.name])
    page.page.evaluate(CONNECT, ["LoadAudio", 0, name, "audio", sample.audio.name])
    prefix = request.node.name.translate(str.maketrans("[]-", "___"))
    page.page.evaluate(FINISH_BLUEPRINT, [name, f"pages/inner_{prefix}", f"pages/saved_{prefix}"])
    page.run()
    video = page.video(f"saved_{prefix}", RUN_SECONDS)
    assert video["seconds"] == pytest.approx(SAMPLE_SECONDS, abs=0.1)
    if "nodes-2" in request.node.name:
        assert page.video(f"inner_{prefix}", RUN_SECONDS) == video
    page.fit()
    page.picture(ARTIFACTS / f"{prefix}.png")
