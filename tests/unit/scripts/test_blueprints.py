"""The subgraph blueprints agree with the workflows that they are made of."""

from __future__ import annotations

import json

import pytest

from scripts.blueprints import BLUEPRINTS, FOLDER, INPUT_NODE, OUTPUT_NODE, Blueprint, build

each_blueprint = pytest.mark.parametrize("blueprint", BLUEPRINTS, ids=lambda blueprint: blueprint.workflow)


def test_blueprints_are_all_shipped() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {blueprint.name for blueprint in BLUEPRINTS}


@each_blueprint
def test_blueprint_file_equals_its_workflow(blueprint: Blueprint) -> None:
    """After a change: python -m scripts.blueprints"""
    stored = json.loads((FOLDER / f"{blueprint.name}.json").read_text(encoding="utf-8"))
    assert stored == build(blueprint)


@each_blueprint
def test_blueprint_links_agree_with_both_their_ends(blueprint: Blueprint) -> None:
    (graph,) = build(blueprint)["definitions"]["subgraphs"]
    ends = {node["id"]: (node["outputs"], node["inputs"]) for node in graph["nodes"]}
    ends[INPUT_NODE], ends[OUTPUT_NODE] = (graph["inputs"], []), ([], graph["outputs"])
    for link in graph["links"]:
        source = ends[link["origin_id"]][0][link["origin_slot"]]
        target = ends[link["target_id"]][1][link["target_slot"]]
        assert link["id"] in (source.get("links") or source.get("linkIds"))
        assert link["id"] in (target.get("linkIds") or [target.get("link")])
        assert link["type"] in source["type"].split(",")
        assert link["type"] in target["type"].split(",")
    linked = {link["id"] for link in graph["links"]}
    used = {slot["link"] for node in graph["nodes"] for slot in node["inputs"]} - {None}
    assert used == {link["id"] for link in graph["links"] if link["target_id"] != OUTPUT_NODE} <= linked
