"""A pack for benchmarks only: a model whose networks cost next to nothing, behind the model that Load Model gives."""

from __future__ import annotations

from typing import Any


async def comfy_entrypoint() -> Any:
    from .node import Extension

    return Extension()
