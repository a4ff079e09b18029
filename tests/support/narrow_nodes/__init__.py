"""Custom nodes for tests: a model on a device that is out of memory."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    from .node import Extension

    return Extension()
