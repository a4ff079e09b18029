"""Custom nodes for tests: stop runs on the pretend device, and compare their results."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    from .node import Extension

    return Extension()
