"""The pretend device inside a real server: where a run stops, what the device holds, and whether results are equal."""

from __future__ import annotations

import gc
import json
import threading
from itertools import chain
from typing import Any, ClassVar

import comfy.model_management as mm
import torch
from aiohttp import web
from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from tests.support.pretend_device import PretendTensor, call_site, current

ROUTES = PromptServer.instance.routes


class Checks:
    """The calls in which ComfyUI and the nodes ask whether the user cancelled.

    cancel_at: number of the call before which the user cancels, from 1.
    sites: the line of each call so far.
    """

    cancel_at = 0
    sites: ClassVar[list[str]] = []


check = mm.throw_exception_if_processing_interrupted


def counted_check() -> None:
    Checks.sites.append(call_site())
    if len(Checks.sites) == Checks.cancel_at:
        mm.interrupt_current_processing()
    check()


mm.throw_exception_if_processing_interrupted = counted_check


@ROUTES.post("/pretend/stop")
async def stop_next_run(request: web.Request) -> web.Response:
    """Let an allocation fail, or cancel at a check. Numbers are from 1. 0 is never."""
    asked, device = await request.json(), current()
    device.allocations, device.failed_at, device.oom_at = 0, "", frozenset({asked["oom"]})
    device.sites = [] if asked["records"] else None
    Checks.sites, Checks.cancel_at = [], asked["cancel"]
    return web.json_response({})


@ROUTES.get("/pretend/state")
async def state(request: web.Request) -> web.Response:
    """What the device holds, besides the weights of models that ComfyUI keeps on it."""
    gc.collect()
    device, weights = current(), dict[int, int]()
    for loaded in mm.current_loaded_models:
        network: Any = None if loaded.model is None else loaded.model.model
        for tensor in () if network is None else chain(network.parameters(), network.buffers()):
            if isinstance(tensor, PretendTensor):
                weights[id(tensor.allocation)] = tensor.allocation.size
    return web.json_response(
        {
            "used_bytes": device.used_bytes,
            "left_bytes": device.used_bytes - sum(weights.values()),
            "failed_at": device.failed_at,
            "oom_sites": device.sites,
            "cancel_sites": Checks.sites,
            "threads": threading.active_count(),
        }
    )


class Compare(io.ComfyNode):
    """Keeps the first result of each seed, and compares the next ones."""

    kept: ClassVar[dict[int, list[torch.Tensor]]] = {}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncTestCompare",
            display_name="Test: compare with the first result",
            category="LatentSync/tests",
            is_output_node=True,
            inputs=[
                io.Int.Input("seed"),
                io.Custom("LATENTSYNC_LIPS").Input("lips"),
                io.Image.Input("images"),
                io.Float.Input("distance"),
            ],
        )

    @classmethod
    def execute(cls, seed: int, lips: Any, images: Any, distance: float) -> io.NodeOutput:
        made = [lips.latents.clone(), images.clone(), torch.tensor(distance)]
        first = cls.kept.setdefault(seed, made)
        difference = [float((new - old).abs().max()) for new, old in zip(made, first, strict=True)]
        return io.NodeOutput(ui={"text": [json.dumps(difference)]})


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Compare]
