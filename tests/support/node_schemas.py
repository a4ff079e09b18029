"""What ComfyUI's page gets to know about the inputs of a node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def inputs(info: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, type and options of every input, in display order."""
    for group, names in info["input_order"].items():
        yield from ((name, *info["input"][group][name]) for name in names if group != "hidden")
