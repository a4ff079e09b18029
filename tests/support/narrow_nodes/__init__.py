"""A pack for tests only: a model on a device without room."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    from .node import Extension

    return Extension()
