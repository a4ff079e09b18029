"""The subgraph blueprints in a real ComfyUI: it lists them, and their inner graphs run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.blueprints import BLUEPRINTS, FOLDER, INPUT_NODE, OUTPUT_NODE, Blueprint
from scripts.comfyui import PACK, ComfyUI
from scripts.sample_clip import Sample
from scripts.workflow import to_api
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES

LOADERS = {"video": ("video", 0), "images": ("frames", 0), "audio": ("sound", 0)}
"""Socket of a blueprint -> the node of the test that is connected to it."""


def stored(blueprint: Blueprint) -> dict[str, Any]:
    return json.loads((FOLDER / f"{blueprint.name}.json").read_text(encoding="utf-8"))


def inner_graph(blueprint: Blueprint, object_info: dict[str, Any]) -> graphs.Graph:
    """What ComfyUI's page sends for a blueprint whose sockets are connected: its inner nodes."""
    (definition,) = stored(blueprint)["definitions"]["subgraphs"]
    inner = [
        link for link in definition["links"] if link["origin_id"] != INPUT_NODE and link["target_id"] != OUTPUT_NODE
    ]
    kept = {link["id"] for link in inner}
    nodes = json.loads(json.dumps(definition["nodes"]))
    for node in nodes:
        for slot in node["inputs"]:
            slot["link"] = slot["link"] if slot["link"] in kept else None
    graph = to_api({"nodes": nodes, "links": inner}, object_info)
    for link in definition["links"]:
        name = definition["inputs"][link["origin_slot"]]["name"] if link["origin_id"] == INPUT_NODE else ""
        if name in LOADERS:
            slot = next(node for node in nodes if node["id"] == link["target_id"])["inputs"][link["target_slot"]]
            graph[str(link["target_id"])]["inputs"][slot["name"]] = list(LOADERS[name])
    return graph


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda blueprint: blueprint.workflow)
def test_blueprint_is_listed_by_comfyui(comfyui: ComfyUI, blueprint: Blueprint) -> None:
    listed = comfyui.get("/global_subgraphs").json()
    ((key, entry),) = [(key, entry) for key, entry in listed.items() if entry["name"] == blueprint.name]
    assert entry["info"]["node_pack"] == f"custom_nodes.{PACK}"
    assert json.loads(comfyui.get(f"/global_subgraphs/{key}").json()["data"]) == stored(blueprint)


@pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda blueprint: blueprint.workflow)
def test_blueprint_inner_graph_runs(comfyui: ComfyUI, sample: Sample, blueprint: Blueprint) -> None:
    graph = graphs.with_landmarks(inner_graph(blueprint, comfyui.object_info()), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncSampler", steps=1)
    graph["video"] = {"class_type": "LoadVideo", "inputs": {"file": sample.video.name}}
    graph["sound"] = {"class_type": "LoadAudio", "inputs": {"audio": sample.audio.name}}
    graph["frames"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["video", 0]}}
    if "images" in blueprint.outputs:
        images = [graphs.node(graph, "LatentSyncToImages"), 0]
        graph["shown"] = {"class_type": "PreviewImage", "inputs": {"images": images}}
        assert len(comfyui.run(graph)["outputs"]["shown"]["images"]) == OUTPUT_FRAMES
    else:
        assert graphs.probe(graphs.the_video(comfyui.outputs(comfyui.run(graph)))).frames == OUTPUT_FRAMES
