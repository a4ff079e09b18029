"""Write the subgraph blueprints: our nodes of a workflow as one node, which ComfyUI lists in its node library.

Usage: python -m scripts.blueprints
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.comfyui import PACK, REPOSITORY

FOLDER = REPOSITORY / "subgraphs"
INPUT_NODE, OUTPUT_NODE = -10, -20  # ids that ComfyUI gives to both ends of a subgraph
END_WIDTH_PX, END_HEAD_PX, SLOT_PX = 140, 48, 20
MARGIN_PX = 200
NODE_SIZE_PX = [340, 420]
PREVIEW = "$$canvas-image-preview"  # ComfyUI's name for the picture or video that a node shows

Node = dict[str, Any]


@dataclass(frozen=True)
class Blueprint:
    """One node made of a workflow's LatentSync nodes.

    sockets, widgets: name on the new node -> class and input of the inner node.
    outputs: name on the new node -> class and output of the inner node.
    preview: class of the inner node whose picture or video the new node shows.
    """

    name: str
    description: str
    workflow: str
    sockets: dict[str, tuple[str, str]]
    widgets: dict[str, tuple[str, str]]
    outputs: dict[str, tuple[str, str]]
    preview: str


WIDGETS = {
    "version": ("LatentSyncLoadModel", "version"),
    "download_missing": ("LatentSyncLoadModel", "download_missing"),
    "face": ("LatentSyncFacePrep", "face"),
    "face_index": ("LatentSyncFacePrep", "face_index"),
    "seed": ("LatentSyncSampler", "seed"),
    "silence": ("LatentSyncAudioEmbed", "silence"),
}

BLUEPRINTS = (
    Blueprint(
        name="Lip Sync (video)",
        description="Changes the lips in a video to match a speech recording, and saves the video.",
        workflow="lipsync_video",
        sockets={"video": ("LatentSyncFacePrep", "source"), "audio": ("LatentSyncAudioEmbed", "audio")},
        widgets={**WIDGETS, "format": ("LatentSyncVideoCombine", "format")},
        outputs={"video": ("LatentSyncVideoCombine", "video")},
        preview="LatentSyncVideoCombine",
    ),
    Blueprint(
        name="Lip Sync (images)",
        description="Changes the lips in an IMAGE batch to match a speech recording. All frames stay in RAM.",
        workflow="lipsync_images",
        sockets={"images": ("LatentSyncFacePrep", "source"), "audio": ("LatentSyncAudioEmbed", "audio")},
        widgets={"image_fps": ("LatentSyncFacePrep", "image_fps"), **WIDGETS},
        outputs={name: ("LatentSyncToImages", name) for name in ("images", "audio", "fps")},
        preview="LatentSyncFacePrep",
    ),
)


def build(blueprint: Blueprint) -> dict[str, Any]:
    """The blueprint as ComfyUI's page saves it: a workflow of one node, and its definition."""
    workflow = json.loads((REPOSITORY / "workflows" / f"{blueprint.workflow}.json").read_text(encoding="utf-8"))
    nodes = {node["type"]: node for node in workflow["nodes"] if node["type"].startswith("LatentSync")}
    ids = {node["id"] for node in nodes.values()}
    links = [
        dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link, strict=True))
        for link in workflow["links"]
        if {link[1], link[3]} <= ids
    ]
    for node in nodes.values():
        _disconnect(node, {link["id"] for link in links})
    last = workflow["last_link_id"]
    inputs = []
    for place, (name, (node_type, input_name)) in enumerate((blueprint.sockets | blueprint.widgets).items()):
        node, last = nodes[node_type], last + 1
        slot = _index(node["inputs"], input_name)
        entry = node["inputs"][slot]
        entry["link"] = last
        socket_type = {"video": "VIDEO", "images": "IMAGE"}.get(name, entry["type"])
        links.append(_link(last, INPUT_NODE, place, node["id"], slot, socket_type))
        inputs.append(_end(blueprint, "input", name, socket_type, last))
    outputs = []
    for place, (name, (node_type, output_name)) in enumerate(blueprint.outputs.items()):
        node, last = nodes[node_type], last + 1
        slot = _index(node["outputs"], output_name)
        entry = node["outputs"][slot]
        entry["links"] = [*(entry["links"] or ()), last]
        links.append(_link(last, node["id"], slot, OUTPUT_NODE, place, entry["type"]))
        outputs.append(_end(blueprint, "output", name, entry["type"], last))
    definition = {
        "id": _id(blueprint),
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": workflow["last_node_id"], "lastLinkId": last, "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": blueprint.name,
        "description": blueprint.description,
        "category": "LatentSync",
        "inputNode": {"id": INPUT_NODE, "bounding": _bounding(nodes, -1, len(inputs))},
        "outputNode": {"id": OUTPUT_NODE, "bounding": _bounding(nodes, 1, len(outputs))},
        "inputs": inputs,
        "outputs": outputs,
        "widgets": [],
        "nodes": list(nodes.values()),
        "groups": [],
        "links": links,
        "extra": {},
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [_node(blueprint, nodes, inputs, outputs)],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [definition]},
        "extra": {},
    }


def _node(blueprint: Blueprint, nodes: dict[str, Node], inputs: list[Node], outputs: list[Node]) -> Node:
    """The one node, with the widgets of the inner nodes."""
    shown = [[str(nodes[node_type]["id"]), name] for node_type, name in blueprint.widgets.values()]
    preview_node = str(nodes[blueprint.preview]["id"])
    sockets = [{"name": entry["name"], "type": entry["type"], "link": None} for entry in inputs]
    for socket in sockets:
        if socket["name"] in blueprint.widgets:
            socket["widget"] = {"name": socket["name"]}
    return {
        "id": 1,
        "type": _id(blueprint),
        "pos": [0, 0],
        "size": NODE_SIZE_PX,
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": sockets,
        "outputs": [{"name": entry["name"], "type": entry["type"], "links": []} for entry in outputs],
        "title": blueprint.name,
        "properties": {
            "proxyWidgets": [*shown, [preview_node, PREVIEW]],  # with the preview for older versions of the page
            "previewExposures": [{"name": PREVIEW, "sourceNodeId": preview_node, "sourcePreviewName": PREVIEW}],
            "cnr_id": PACK,
        },
        "widgets_values": [],
    }


def _disconnect(node: Node, kept: set[int]) -> None:
    """Remove the links of a node to nodes outside the subgraph."""
    for slot in node["inputs"]:
        slot["link"] = slot["link"] if slot["link"] in kept else None
    for slot in node["outputs"]:
        slot["links"] = [link for link in slot["links"] or () if link in kept] or None


def _index(slots: list[Node], name: str) -> int:
    return next(index for index, slot in enumerate(slots) if slot["name"] == name)


def _link(link: int, origin: int, origin_slot: int, target: int, target_slot: int, socket_type: str) -> Node:
    return {
        "id": link,
        "origin_id": origin,
        "origin_slot": origin_slot,
        "target_id": target,
        "target_slot": target_slot,
        "type": socket_type,
    }


def _end(blueprint: Blueprint, side: str, name: str, socket_type: str, link: int) -> Node:
    """An input or output of the subgraph. Its id stays the same in every build."""
    slot_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{blueprint.name}/{side}/{name}"))
    return {"id": slot_id, "name": name, "type": socket_type, "linkIds": [link]}


def _id(blueprint: Blueprint) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK}/{blueprint.name}"))


def _bounding(nodes: dict[str, Node], side: int, slots: int) -> list[float]:
    """Where one end of the subgraph is drawn: left (-1) or right (1) of all nodes."""
    top = min(node["pos"][1] for node in nodes.values())
    if side < 0:
        left = min(node["pos"][0] for node in nodes.values()) - MARGIN_PX - END_WIDTH_PX
    else:
        left = max(node["pos"][0] + node["size"][0] for node in nodes.values()) + MARGIN_PX
    return [left, top, END_WIDTH_PX, END_HEAD_PX + SLOT_PX * slots]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for blueprint in BLUEPRINTS:
        path: Path = FOLDER / f"{blueprint.name}.json"
        path.write_text(json.dumps(build(blueprint), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
