"""A pack for benchmarks only: a model whose networks cost next to nothing, behind the model that Load Model gives.

All else of the product stays as it is. The arithmetic is that of `benchmarks.stand_in`, which ComfyUI cannot import.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from comfy_api.latest import ComfyExtension, io
from torch.nn import functional as F

LATENT_STRIDE, LATENT_SCALE = 8, 0.18215


class PoolingCodec:
    """Latents are the picture, eight times smaller."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        small = F.avg_pool2d(images, LATENT_STRIDE)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return F.interpolate(latents[:, :3], scale_factor=LATENT_STRIDE)


def predict_nothing(x: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    return x[:, :4] * LATENT_SCALE, x


class StandIn(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        model = io.Custom("LATENTSYNC_MODEL")
        return io.Schema(
            node_id="LatentSyncBenchmarkStandIn",
            display_name="Benchmark: networks that cost nothing",
            category="LatentSync/benchmarks",
            inputs=[model.Input("model")],
            outputs=[model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        class Cheap(type(model)):
            def denoiser(self) -> Any:
                return predict_nothing

        given = {field.name: getattr(model, field.name) for field in fields(model)}
        return io.NodeOutput(Cheap(**given | {"codec": PoolingCodec()}))


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [StandIn]


async def comfy_entrypoint() -> Extension:
    return Extension()
