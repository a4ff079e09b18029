"""Where another pack's node stands in a graph and that pack is not installed, ComfyUI offers one of ours."""

from comfy_api.latest import ComfyAPI, io

from .blend_inputs import blend_inputs

LIP_SYNC_NODES = ("LatentSyncNode", "D_LatentSyncNode")
"""Whole lip syncs in one node: images and audio in, images and audio out."""


async def register_replacements() -> None:
    """Offer To Images, whose outputs those nodes' followers can stay wired to.

    ComfyUI puts one node in the place of one, and those are five of ours: `lips` is left to wire. To Images has none
    of their inputs; its own get their defaults.
    """
    defaults = [{"new_id": given.id, "set_value": given.default} for given in blend_inputs()]
    for node_id in LIP_SYNC_NODES:
        await ComfyAPI().node_replacement.register(
            io.NodeReplace(
                old_node_id=node_id,
                new_node_id="LatentSyncToImages",
                input_mapping=defaults,
                output_mapping=[{"old_idx": 0, "new_idx": 0}, {"old_idx": 1, "new_idx": 2}],
            )
        )
