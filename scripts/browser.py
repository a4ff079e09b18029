"""Use the page of ComfyUI in a headless Chromium like a user: templates, Run, help, search, language."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Locator, Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WIDTH_PX, HEIGHT_PX = 1600, 900
# The page shows a spinner until it has loaded its first graph.
READY = """() => window.app?.graph && window.app.extensionManager && !window.app.extensionManager.spinner
    && document.querySelector('[data-testid=side-toolbar]')"""
START_MS = 120_000
LOAD_MS = 30_000
SELECTIONS = 10

NODES = """() => app.graph.nodes.map(node => ({
    type: node.type,
    title: node.title,
    red: Boolean(node.has_errors) || node.constructor.name === 'LGraphNode',
    labels: [...node.inputs, ...node.outputs].map(slot => slot.label || slot.localized_name || slot.name),
}))"""

WATCH_PROGRESS = """() => {
    window.progressSeen = {};
    const look = () => {
        for (const node of app.graph.nodes)
            if (node.progress) (window.progressSeen[node.type] ||= new Set()).add(node.progress);
        requestAnimationFrame(look);
    };
    look();
}"""
PROGRESS = "() => Object.entries(window.progressSeen).map(([type, seen]) => [type, [...seen]])"

SHOWN = "([part]) => [...document.querySelectorAll('video')].find(video => video.src.includes(part))"
ERROR = "[data-testid=error-overlay]"
ENDED = f"""(given) => {{
    const video = ({SHOWN})(given);
    return (video && video.readyState >= 2) || document.querySelector('{ERROR}');
}}"""
VIDEO = f"""(given) => {{
    const video = ({SHOWN})(given);
    return {{width: video.videoWidth, height: video.videoHeight, seconds: video.duration}};
}}"""

SET_WIDGET = """([type, name, value]) => {
    for (const node of app.graph.nodes.filter(node => node.type === type)) {
        const widget = node.widgets.find(widget => widget.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
}"""
BOXES = """() => app.graph.nodes.map(node => {
    const shown = document.querySelector(`[data-node-id="${node.id}"]`), {scale, offset} = app.canvas.ds;
    if (!shown) {
        const [left, top, width, height] = node.boundingRect;
        return [node.title, left, top, left + width, top + height];
    }
    const box = shown.getBoundingClientRect();
    const ends = [[box.left, box.top], [box.right, box.bottom]];
    return [node.title, ...ends.flatMap(([x, y]) => [x / scale - offset[0], y / scale - offset[1]])];
})"""
FONT_PX = """([type]) => {
    const node = app.graph.nodes.find(node => node.type === type), scale = app.canvas.ds.scale;
    const shown = document.querySelector(`[data-node-id="${node.id}"]`);
    if (!shown) return app.canvas.low_quality ? 0 : scale * LiteGraph.NODE_SUBTEXT_SIZE;
    const texts = document.createTreeWalker(shown, NodeFilter.SHOW_TEXT, text => text.data.trim() ? 1 : 2);
    const sizes = [];
    while (texts.nextNode()) sizes.push(parseFloat(getComputedStyle(texts.currentNode.parentElement).fontSize));
    return scale * Math.min(...sizes);
}"""
SET_MODE = "([type, mode]) => app.graph.nodes.filter(node => node.type === type).forEach(node => { node.mode = mode })"
ALWAYS, BYPASSED = 0, 4
SELECT = "([type]) => app.canvas.selectNode(app.graph.nodes.find(node => node.type === type))"
FIT = """() => new Promise(done => {
    app.canvas.fitViewToSelectionAnimated({duration: 1});
    requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done)));
})"""


@dataclass(frozen=True)
class NodeView:
    """A node on the page. `red`: unknown or marked as faulty. `labels`: of its inputs and outputs."""

    type: str
    title: str
    red: bool
    labels: list[str]


class Box(NamedTuple):
    """A node on the page, in pixels of the graph."""

    title: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def program() -> str | None:
    """The path of Chromium or Chrome. None if neither is installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def opened(url: str, locale: str = "en", nodes_2: bool = False) -> Iterator[ComfyPage]:
    """The page of a running ComfyUI in a language, without the dialogs of a first visit.

    nodes_2: the page draws the nodes as HTML (Nodes 2.0), and else on the canvas.
    Raises RuntimeError if no browser is installed.
    """
    executable = program()
    if executable is None:
        raise RuntimeError(
            f"None of {', '.join(PROGRAMS)} is installed. Install Chromium with the package manager of the system."
        )
    settings = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Locale": locale}
    settings["Comfy.VueNodes.Enabled"] = nodes_2
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
        page.request.post(f"{url}/api/settings", data=settings)
        page.set_default_timeout(START_MS)  # on a busy machine, any action can take long
        page.goto(url)
        page.wait_for_function(READY)
        try:
            yield ComfyPage(page)
        finally:
            page.request.post(f"{url}/api/settings", data={"Comfy.Locale": "en", "Comfy.VueNodes.Enabled": False})
            browser.close()


class ComfyPage:
    """Actions of a user on the page, and its contents."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def templates(self, pack: str) -> Locator:
        """Open the template browser at a pack. Returns the cards of its templates."""
        self.page.get_by_role("button", name="Templates").first.click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_text(pack).first.click()
        cards = dialog.get_by_test_id("template-workflows-content").locator("[data-testid^=template-workflow-]")
        cards.first.wait_for(timeout=LOAD_MS)
        return cards

    def open_template(self, pack: str, name: str) -> None:
        """Open a template of a pack by its name."""
        self.templates(pack)
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()  # the page loads a picture when its card comes into view
        card.locator("img").first.click()
        self.page.wait_for_function("() => app.graph.nodes.some(node => node.type.startsWith('LatentSync'))")

    def open_graph(self, file: Path) -> None:
        """Open a graph in UI format, as if its file were dropped on the canvas."""
        self.page.evaluate("([graph]) => app.loadGraphData(graph)", [json.loads(file.read_text(encoding="utf-8"))])

    def nodes(self) -> list[NodeView]:
        """The nodes of the open graph."""
        return [NodeView(**node) for node in self.page.evaluate(NODES)]

    def set_widget(self, node_type: str, name: str, value: object) -> None:
        """Set a widget of every node of a class."""
        self.page.evaluate(SET_WIDGET, [node_type, name, value])

    def bypass(self, node_type: str, bypassed: bool = True) -> None:
        """Bypass the nodes of a class, or turn them on again."""
        self.page.evaluate(SET_MODE, [node_type, BYPASSED if bypassed else ALWAYS])

    def run(self) -> None:
        """Press Run, and record the progress of the nodes from then on."""
        self.page.evaluate(WATCH_PROGRESS)
        self.page.get_by_test_id("queue-button").click()

    def prefix(self) -> str:
        """The beginning of the file name of the video that the open graph writes."""
        node = "app.graph.nodes.find(node => /VideoCombine|SaveVideo/.test(node.type))"
        prefix = self.page.evaluate(f"() => {node}.widgets.find(widget => widget.name === 'filename_prefix').value")
        return f"{Path(prefix).name}_"

    def progress(self) -> dict[str, list[float]]:
        """Node class -> the values, 0 to 1, that its progress bar has shown since `run`."""
        return dict(self.page.evaluate(PROGRESS))

    def video(self, name_part: str, timeout_seconds: float) -> dict[str, float]:
        """Wait for a playable video whose address contains `name_part`: its width and height in pixels, and seconds.

        Raises RuntimeError with the error on the page if the run fails.
        """
        self.page.wait_for_function(ENDED, arg=[name_part], timeout=1000 * timeout_seconds)
        if error := self.error():
            raise RuntimeError(error)
        return self.page.evaluate(VIDEO, [name_part])

    def error(self) -> str:
        """The text of the error note on the page. Empty without an error."""
        note = self.page.locator(ERROR)
        return note.inner_text() if note.count() else ""

    def details(self) -> Locator:
        """Open the panel with the details of errors."""
        self.page.get_by_test_id("error-overlay-see-errors").click(timeout=LOAD_MS)
        panel = self.page.get_by_test_id("properties-panel")
        panel.wait_for(timeout=LOAD_MS)
        return panel

    def help(self, node_type: str) -> Locator:
        """Select a node and open its help panel. If the page drops the selection, select again."""
        self.fit()  # else the menu may cover the button
        button = self.page.get_by_test_id("info-button")
        for _ in range(SELECTIONS):
            self.page.evaluate(SELECT, [node_type])
            with suppress(PlaywrightTimeoutError):
                button.click(timeout=LOAD_MS / SELECTIONS)
                break
        else:
            raise RuntimeError(f"The page shows no help button for {node_type}.")
        panel = self.page.locator(".node-help-content")
        panel.wait_for(timeout=LOAD_MS)
        return panel

    def search(self, phrase: str) -> Locator:
        """Open the node search and type a phrase. Returns the nodes that it lists. Escape closes it."""
        self.page.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        box = self.page.get_by_role("dialog").get_by_role("combobox")
        box.press_sequentially(phrase)
        return self.page.get_by_test_id("result-item")

    def boxes(self) -> list[Box]:
        """The place of each node, with its title."""
        return [Box(*values) for values in self.page.evaluate(BOXES)]

    def font_px(self, node_type: str) -> float:
        """Height of the smallest text of a node, in pixels of the screen. 0 if the page draws no text at this zoom."""
        return self.page.evaluate(FONT_PX, [node_type])

    def set_palette(self, name: str) -> None:
        """Choose the colors of the page, such as dark or light, as in its settings."""
        self.page.evaluate("([name]) => app.extensionManager.setting.set('Comfy.ColorPalette', name)", [name])
        self.page.wait_for_function(
            "([light]) => document.documentElement.classList.contains('dark-theme') !== light", arg=[name == "light"]
        )

    def fit(self) -> None:
        """Bring the whole graph into view, as ComfyUI's "fit view" does."""
        self.page.evaluate(FIT)

    def picture(self, path: Path) -> Path:
        """Save a screenshot of the page as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)
        return path
