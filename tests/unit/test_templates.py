"""The templates' graphs are readable: no link behind a node, no overlaps, and titles large enough to read.

The geometry follows ComfyUI's canvas (LiteGraph): slots, splines between them, and "fit view".
"""

from __future__ import annotations

import json
import math
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from latentsync.weights.catalog import FACE_LANDMARKER, MODELS, SELFIE_SEGMENTER, VAE, WHISPER
from scripts import browser
from scripts.workflow import BYPASSED
from tests.support.paths import REPOSITORY

TEMPLATES = sorted((REPOSITORY / "workflows").glob("*.json"))
TITLE_PX, SLOT_PX, WIDGET_PX = 30, 20, 24
SLOT_INSET_PX = 10
SPLINE = 0.25
"""Distance of a control point, as a share of the length of the link."""
MAX_CONTROL_PX = 20
"""Largest distance of the control points at a reroute: the default of a setting of ComfyUI."""
SAMPLES = 200
CLEARANCE_PX = 6
"""A link that comes closer to a node is hard to follow."""
GROUP_TITLE_PX = 34
GROUP_CHARACTER_PX = 12
GROUP_PADDING_PX = 40
"""Largest empty space below the lowest node of a group."""
PAGE_PX = (1600, 900)
FIT_SHARE, FIT_PADDING_PX = 0.75, 10
SMALLEST_SCALE = 8 / 14
"""Below it ComfyUI draws no titles: they have 14 pixels, and the smallest text that it draws has 8."""
READABLE_SCALE = 9 / 12
"""The smallest texts of a node have 12 pixels, in both versions of the page."""
READABLE = {"lipsync_video", "lipsync_long_video", "lipsync_song", "lipsync_occlusion"}
"""Templates with the five main nodes and one recording. The others have more nodes than fit at that scale."""
NOTE_WIDTHS_PX = (400, 490)
TITLE_ICONS_PX, TITLE_CHARACTER_PX = 40, 7.0
"""Measured in ComfyUI's page: "Frames (or any node that outputs IMAGE)" needs 313 pixels."""

FILE_NODES = ("LoadVideo", "LoadAudio", "LoadImage")
APP_INPUTS = {
    "LoadVideo": ("file",),
    "LoadAudio": ("audio",),
    "LatentSyncFacePrep": ("face", "face_index"),
    "LatentSyncSampler": ("seed",),
}

Graph = dict[str, Any]
Point = tuple[float, float]
Path2D = npt.NDArray[np.float64]

each_template = pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    overlaps = browser.Box.overlaps

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and self.top + GROUP_TITLE_PX <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def meets(self, points: Path2D, margin: float) -> bool:
        x, y = points.T
        inside = (self.left - margin < x) & (x < self.right + margin)
        return bool((inside & (self.top - margin < y) & (y < self.bottom + margin)).any())


def load(path: Path) -> Graph:
    return json.loads(path.read_text(encoding="utf-8"))


def node_box(node: Graph) -> Box:
    (x, y), (width, height) = node["pos"], node["size"]
    return Box(x, y - TITLE_PX, x + width, y + height)


def group_box(group: Graph) -> Box:
    x, y, width, height = group["bounding"]
    return Box(x, y, x + width, y + height)


def name(item: Graph) -> str:
    return item.get("title") or item["type"]


def input_position(node: Graph, index: int) -> Point:
    """The position of an input's dot. An input with a widget has it beside the widget."""
    slots = [slot for slot in node["inputs"] if "widget" not in slot]
    slot = node["inputs"][index]
    x, y = node["pos"]
    if slot in slots:
        return x + SLOT_INSET_PX, y + (slots.index(slot) + 0.7) * SLOT_PX
    widgets = [other for other in node["inputs"] if "widget" in other]
    rows = max(len(slots), len(node["outputs"]))
    return x + SLOT_INSET_PX, y + rows * SLOT_PX + 4 + (widgets.index(slot) + 0.5) * WIDGET_PX


def output_position(node: Graph, index: int) -> Point:
    (x, y), (width, _) = node["pos"], node["size"]
    return x + width + 1 - SLOT_INSET_PX, y + (index + 0.7) * SLOT_PX


def links(graph: Graph) -> list[tuple[Graph, Graph, Path2D]]:
    """Of each link: the node that it leaves, the node that it enters, and points (n, 2) along it."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    reroutes = {reroute["id"]: reroute for reroute in graph["extra"].get("reroutes", [])}
    last = {link["id"]: link["parentId"] for link in graph["extra"].get("linkExtensions", [])}
    found = []
    for link, source, source_slot, target, target_slot, _ in graph["links"]:
        between: list[Point] = []
        reroute = last.get(link)
        while reroute is not None:
            between.insert(0, tuple(reroutes[reroute]["pos"]))
            reroute = reroutes[reroute].get("parentId")
        ends = output_position(nodes[source], source_slot), input_position(nodes[target], target_slot)
        found.append((nodes[source], nodes[target], spline([ends[0], *between, ends[1]])))
    return found


def spline(points: list[Point]) -> Path2D:
    """Points along the splines through a link's ends and reroutes.

    A link leaves and enters a node horizontally. At a reroute it has the mean direction of the lines on both sides.
    """
    headings = [math.atan2(after[1] - before[1], after[0] - before[0]) for before, after in pairwise(points)]
    turns = [0.0, *(mean_angle(before, after) for before, after in pairwise(headings)), 0.0]
    t = np.linspace(0, 1, SAMPLES)[:, None]
    parts = []
    for number, (start, end) in enumerate(pairwise(points)):
        reach = SPLINE * math.dist(start, end)
        leave = reach if number == 0 else min(MAX_CONTROL_PX, reach)
        enter = reach if number == len(points) - 2 else min(MAX_CONTROL_PX, reach)
        a, d = np.array(start), np.array(end)
        b = a + leave * np.array([math.cos(turns[number]), math.sin(turns[number])])
        c = d - enter * np.array([math.cos(turns[number + 1]), math.sin(turns[number + 1])])
        parts.append(a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3)
    return np.concatenate(parts)


def mean_angle(first: float, second: float) -> float:
    half = (first - second) / 2
    return first - (half + math.pi if abs(half) > math.pi / 2 else half)


@each_template
def test_template_links_pass_no_other_node(path: Path) -> None:
    graph = load(path)
    hidden = [
        f"{name(source)} -> {name(target)} behind {name(node)}"
        for source, target, points in links(graph)
        for node in graph["nodes"]
        if node["id"] not in (source["id"], target["id"]) and node_box(node).meets(points, CLEARANCE_PX)
    ]
    assert hidden == []


@each_template
def test_template_links_do_not_run_behind_their_own_nodes(path: Path) -> None:
    """The dots are 10 pixels inside the nodes."""
    hidden = [
        f"{name(source)} -> {name(target)}"
        for source, target, points in links(load(path))
        if any(node_box(node).meets(points[inside(node, points)], 0) for node in (source, target))
    ]
    assert hidden == []


def inside(node: Graph, points: Path2D) -> npt.NDArray[np.bool_]:
    """The points that are no end of a link at its dot."""
    box = node_box(node)
    x = points[:, 0]
    return (box.left + SLOT_INSET_PX + 1 < x) & (x < box.right - SLOT_INSET_PX - 1)


@each_template
def test_template_links_pass_no_group_title(path: Path) -> None:
    graph = load(path)
    crossed = [
        f"{name(source)} -> {name(target)} over {name(group)}"
        for source, target, points in links(graph)
        for group in graph["groups"]
        if title_box(group).meets(points, 0)
    ]
    assert crossed == []


def title_box(group: Graph) -> Box:
    left, top, *_ = group_box(group)
    return Box(left, top, left + GROUP_CHARACTER_PX * len(name(group)), top + GROUP_TITLE_PX)


@each_template
def test_template_nodes_do_not_overlap(path: Path) -> None:
    nodes = load(path)["nodes"]
    assert [(name(a), name(b)) for a, b in combinations(nodes, 2) if node_box(a).overlaps(node_box(b))] == []


@each_template
def test_template_groups_hold_their_nodes_and_no_empty_space(path: Path) -> None:
    graph = load(path)
    groups = graph["groups"]
    assert [(a["title"], b["title"]) for a, b in combinations(groups, 2) if group_box(a).overlaps(group_box(b))] == []
    for node in graph["nodes"]:
        around = [name(group) for group in groups if group_box(group).overlaps(node_box(node))]
        holding = [name(group) for group in groups if group_box(group).holds(node_box(node))]
        assert around == holding, name(node)
        assert len(holding) == (node["type"] != "MarkdownNote"), name(node)
    for group in groups:
        lowest = max(node_box(node).bottom for node in graph["nodes"] if group_box(group).holds(node_box(node)))
        assert group_box(group).bottom - lowest <= GROUP_PADDING_PX, name(group)


@each_template
def test_template_titles_are_readable_in_fit_view(path: Path) -> None:
    graph = load(path)
    boxes = [*map(node_box, graph["nodes"]), *map(group_box, graph["groups"])]
    width = max(box.right for box in boxes) - min(box.left for box in boxes) + 2 * FIT_PADDING_PX
    height = max(box.bottom for box in boxes) - min(box.top for box in boxes) + 2 * FIT_PADDING_PX
    smallest = READABLE_SCALE if path.stem in READABLE else SMALLEST_SCALE
    assert min(FIT_SHARE * PAGE_PX[0] / width, FIT_SHARE * PAGE_PX[1] / height) >= smallest


@each_template
def test_template_titles_fit_their_nodes(path: Path) -> None:
    """ComfyUI widens a node whose title is longer."""
    assert [name(node) for node in load(path)["nodes"] if title_width(node) > node["size"][0]] == []


def title_width(node: Graph) -> float:
    return TITLE_ICONS_PX + TITLE_CHARACTER_PX * len(name(node))


@each_template
def test_template_starts_with_a_note_at_top_left(path: Path) -> None:
    graph = load(path)
    (note,) = (node for node in graph["nodes"] if node["type"] == "MarkdownNote")
    boxes = [*map(node_box, graph["nodes"]), *map(group_box, graph["groups"])]
    assert node_box(note)[:2] == (min(box.left for box in boxes), min(box.top for box in boxes))
    assert NOTE_WIDTHS_PX[0] <= note["size"][0] <= NOTE_WIDTHS_PX[1]
    (text,) = note["widgets_values"]
    assert "Choose your own files: the samples are not installed." in text.split("\n2. ")[0]


@each_template
def test_template_groups_are_numbered_in_order(path: Path) -> None:
    titles = [group["title"] for group in load(path)["groups"]]
    assert len(set(titles)) == len(titles)
    numbers = [int(title.split()[0].rstrip("abc")) for title in titles]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, numbers[-1] + 1))


@each_template
def test_template_lists_every_file_of_the_model(path: Path) -> None:
    """The models stay listed, so that the page can download one that a user chooses by name."""
    nodes = load(path)["nodes"]
    (loader,) = (node for node in nodes if node["type"] == "LatentSyncLoadModel")
    assert loader["widgets_values"][3] == "auto"
    files = [*(spec.unet for spec in MODELS.values()), WHISPER, VAE]
    assert listed(loader) == {(file.path, file.url, file.sha256) for file in files}
    for node in nodes:
        if node["type"] == "LatentSyncFacePrep":
            files = [FACE_LANDMARKER, *([SELFIE_SEGMENTER] if "auto" in node["widgets_values"] else [])]
            assert listed(node) == {(file.path, file.url, file.sha256) for file in files}


def listed(node: Graph) -> set[tuple[str, str, str]]:
    models = node["properties"]["models"]
    return {(f"{model['directory']}/{model['name']}", model["url"], model["hash"]) for model in models}


@each_template
def test_template_groups_that_are_off_are_bypassed(path: Path) -> None:
    """A bypassed node needs no model file. The title of its group says that the whole group is off."""
    graph = load(path)
    off = [group_box(group) for group in graph["groups"] if group["title"].endswith("(off)")]
    for node in graph["nodes"]:
        assert (node["mode"] == BYPASSED) == any(box.holds(node_box(node)) for box in off), name(node)


@each_template
def test_template_opens_without_files_that_do_not_exist(path: Path) -> None:
    """The page marks a node red whose file is missing, and accepts an empty choice."""
    chosen = {name(node): node["widgets_values"][0] for node in load(path)["nodes"] if node["type"] in FILE_NODES}
    assert chosen
    assert set(chosen.values()) == {""}


@pytest.mark.parametrize("stem", ["lipsync_video", "lipsync_song", "lipsync_two_speakers"])
def test_template_app_form_shows_inputs_and_video(stem: str) -> None:
    """App mode of ComfyUI's page: files, face and seed of every node that has them, and the finished video."""
    graph = load(REPOSITORY / "workflows" / f"{stem}.json")
    app = graph["extra"]["linearData"]
    nodes = {str(node["id"]): node for node in graph["nodes"]}
    shown = {(key, widget) for key, widget in app["inputs"]}
    wanted = {(str(node["id"]), widget) for node in graph["nodes"] for widget in APP_INPUTS.get(node["type"], ())}
    assert shown == wanted
    assert [nodes[key]["type"] for key in app["outputs"]] == ["LatentSyncVideoCombine"]
