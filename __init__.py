"""LatentSync Nodes: a ComfyUI node pack. ComfyUI calls `comfy_entrypoint`; nothing else happens at import."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import LatentSyncExtension

WEB_DIRECTORY = "./web"
"""Where ComfyUI's page finds the help of each node, and a script for the colors of our sockets."""


async def comfy_entrypoint() -> LatentSyncExtension:
    """The extension, imported here and not above so that tools which import this file need no ComfyUI."""
    from .nodes import LatentSyncExtension

    return LatentSyncExtension()
