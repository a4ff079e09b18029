"""Convert a graph from the UI format, which the browser saves, to the API format of POST /prompt.

Usage: python scripts/workflow.py FILE --server URL
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MUTED, BYPASSED = 2, 4
UNEXECUTED = frozenset({"Note", "MarkdownNote", "PrimitiveNode", "Reroute"})
WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "COMFY_DYNAMICCOMBO_V3"})
SEED_NAMES = frozenset({"seed", "noise_seed"})

UPLOAD_VALUES = {"image_upload": 1, "animated_image_upload": 1, "video_upload": 1, "audio_upload": 2}
"""Option of a file combo -> number of values after the required widgets: a button, and a player for audio."""

Node = dict[str, Any]
Spec = list[Any]
"""One input in object_info: [type or choices, options]."""


class WorkflowError(ValueError):
    """The graph does not fit the schemas of its nodes."""


def to_api(ui_workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A UI-format workflow as the `prompt` of POST /prompt: node id -> class_type, inputs, _meta.

    ui_workflow: a saved graph, with `nodes` and `links`.
    object_info: the schemas of its node classes on the server.
    Raises WorkflowError for an unknown node class, a subgraph, or widget values that do not fit the schema.
    """
    graph = _Graph(ui_workflow)
    return {
        str(node["id"]): {
            "class_type": node["type"],
            "inputs": _widgets(node, _schema(node, object_info)) | dict(graph.linked_inputs(node)),
            "_meta": {"title": node.get("title") or node["type"]},
        }
        for node in graph.nodes.values()
        if graph.executes(node)
    }


class _Graph:
    """Nodes and links by id. Follows links through nodes that do not execute."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        self.nodes: dict[Any, Node] = {node["id"]: node for node in workflow["nodes"]}
        self.links = dict(_origin(link) for link in workflow.get("links", []))

    def executes(self, node: Node) -> bool:
        return node["type"] not in UNEXECUTED and node.get("mode", 0) not in (MUTED, BYPASSED)

    def linked_inputs(self, node: Node) -> Iterator[tuple[str, Any]]:
        """Each connected input of a node with [source node id, output index], or the value of a primitive."""
        for slot in node.get("inputs", []):
            if (source := self._source(slot.get("link"))) is not None:
                yield slot["name"], source

    def _source(self, link_id: int | None) -> Any:
        if link_id is None:
            return None
        node_id, output_slot = self.links[link_id]
        node = self.nodes[node_id]
        if self.executes(node):
            return [str(node_id), output_slot]
        if node["type"] == "PrimitiveNode":
            return node["widgets_values"][0]
        if node["type"] == "Reroute" or node.get("mode", 0) == BYPASSED:
            return self._source(_passed_through(node, output_slot))
        return None


def _origin(link: Any) -> tuple[int, tuple[Any, int]]:
    """The id of a link, and its source node and output."""
    if isinstance(link, dict):
        return link["id"], (link["origin_id"], link["origin_slot"])
    return link[0], (link[1], link[2])


def _passed_through(node: Node, output_slot: int) -> int | None:
    """The link that a bypassed node passes to an output: of the same index and type, or else of the same type.

    An input can have several types, such as "FLOAT,INT".
    """
    if node["type"] == "Reroute":
        return node["inputs"][0].get("link")
    wanted = node["outputs"][output_slot]["type"]
    fitting = [
        (place, slot) for place, slot in enumerate(node.get("inputs", [])) if wanted in str(slot["type"]).split(",")
    ]
    ordered = sorted(fitting, key=lambda found: (found[0] != output_slot, found[1]["type"] != wanted))
    return next((slot.get("link") for _, slot in ordered if slot.get("link") is not None), None)


def _schema(node: Node, object_info: Mapping[str, Any]) -> Mapping[str, Any]:
    if node["type"] not in object_info:
        raise WorkflowError(
            f"Node {node['id']} has the class {node['type']}, which this ComfyUI does not have. Install its pack."
        )
    return object_info[node["type"]]["input"]


def _widgets(node: Node, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The widget values of a node by input name."""
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):
        return {name: value for name, value in saved.items() if name in _names(schema)}
    values = _Values(node, saved)
    shown = {slot["widget"]["name"] for slot in node.get("inputs", []) if slot.get("widget")}
    required = _section(schema.get("required", {}), "", shown, values)
    values.skip(sum(_upload_values(spec) for spec in schema.get("required", {}).values()))
    optional = _section(schema.get("optional", {}), "", shown, values)
    values.finish()
    return required | optional


class _Values:
    """The saved widget values of a node, in order. A widget that is newer than the file gets its default."""

    def __init__(self, node: Node, saved: list[Any]) -> None:
        self.node = node
        self.left = list(saved)

    def take(self, name: str, spec: Spec) -> Any:
        if self.left:
            return self.left.pop(0)
        choices = _choices(spec)
        if "default" in _options(spec) or choices:
            return _options(spec).get("default", choices[0] if choices else None)
        raise WorkflowError(
            f'{self._where()} has no saved value for "{name}", which has no default. Save the workflow again.'
        )

    def skip(self, count: int) -> None:
        del self.left[:count]

    def finish(self) -> None:
        """Raise if values remain. Empty values belong to preview widgets, which no input reads."""
        if any(value not in (None, "", False) for value in self.left):
            raise WorkflowError(
                f"{self._where()} has {len(self.left)} saved values without a widget. Save the workflow again."
            )

    def _where(self) -> str:
        return f"Node {self.node['id']} ({self.node['type']})"


def _section(specs: Mapping[str, Spec], prefix: str, shown: set[str], values: _Values) -> dict[str, Any]:
    """The values of the widgets among some inputs, in the order of the schema."""
    found: dict[str, Any] = {}
    for bare_name, spec in specs.items():
        name = f"{prefix}{bare_name}"
        if not _is_widget(spec, name in shown):
            continue
        found[name] = value = values.take(name, spec)
        values.skip(_control_values(bare_name, spec))
        for section in ("required", "optional"):
            found |= _section(_chosen(spec, value).get(section, {}), f"{name}.", shown, values)
    return found


def _is_widget(spec: Spec, shown: bool) -> bool:
    options = _options(spec)
    if options.get("forceInput"):
        return False
    return shown or isinstance(spec[0], list) or spec[0] in WIDGET_TYPES or "widgetType" in options


def _control_values(name: str, spec: Spec) -> int:
    """The number of "control after generate" values after the value of a widget."""
    controlled = _options(spec).get("control_after_generate", spec[0] == "INT" and name in SEED_NAMES)
    return int(bool(controlled))


def _upload_values(spec: Spec) -> int:
    return max((count for option, count in UPLOAD_VALUES.items() if _options(spec).get(option)), default=0)


def _chosen(spec: Spec, value: Any) -> Mapping[str, Any]:
    """The inputs that a dynamic combo shows for the chosen value."""
    if spec[0] != "COMFY_DYNAMICCOMBO_V3":
        return {}
    return next((option["inputs"] for option in _options(spec)["options"] if option["key"] == value), {})


def _choices(spec: Spec) -> list[Any]:
    choices = spec[0] if isinstance(spec[0], list) else _options(spec).get("options", [])
    return [choice["key"] if isinstance(choice, dict) else choice for choice in choices]


def _options(spec: Spec) -> Mapping[str, Any]:
    return spec[1] if len(spec) > 1 else {}


def _names(schema: Mapping[str, Any]) -> set[str]:
    return {name for section in ("required", "optional") for name in schema.get(section, {})}


def main() -> None:
    parser = argparse.ArgumentParser(description="Print a saved workflow in the format of POST /prompt.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="a running ComfyUI (default: %(default)s)")
    arguments = parser.parse_args()
    with urllib.request.urlopen(f"{arguments.server}/object_info", timeout=60) as answer:
        object_info = json.load(answer)
    print(json.dumps(to_api(json.loads(arguments.file.read_text(encoding="utf-8")), object_info), indent=2))


if __name__ == "__main__":
    main()
