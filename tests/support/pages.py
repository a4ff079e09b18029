"""Workflows in ComfyUI's page, ready to run on the sample clip."""

from __future__ import annotations

from itertools import combinations

from scripts.browser import ComfyPage
from tests.support import graphs

RUN_SECONDS = 300.0

CONNECT = """([from_type, output, to_type, input, value]) => {
    const to = app.graph.nodes.find(node => [node.type, node.title].includes(to_type));
    const from = LiteGraph.createNode(from_type);
    app.graph.add(from);
    from.widgets[0].value = value;
    from.connect(output, to, to.findInputSlot(input));
}"""
"""Add a node with a value in its first widget, and connect it to a node of a class or title."""


def open_with_samples(page: ComfyPage, name: str) -> None:
    """Open a workflow as if its file were dropped on the canvas, with the sample clip and two steps."""
    page.open_graph(graphs.WORKFLOWS / f"{name}.json")
    choose_samples(page)


def choose_samples(page: ComfyPage) -> None:
    for node_type, inputs in graphs.SAMPLE_FILES.items():
        for widget, file in inputs.items():
            page.set_widget(node_type, widget, file)
    page.set_widget("LatentSyncLoadModel", "version", "1.5")
    page.set_widget("LatentSyncSampler", "steps", 2)


def overlaps_after_run(page: ComfyPage) -> list[tuple[str, str]]:
    """Run the open workflow, and wait for its video. Returns the titles of nodes that lie over each other then."""
    page.run()
    page.video(page.prefix(), RUN_SECONDS)
    page.fit()
    return [(one.title, other.title) for one, other in combinations(page.boxes(), 2) if one.overlaps(other)]
