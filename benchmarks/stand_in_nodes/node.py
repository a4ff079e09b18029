"""The node that puts the stand-ins behind a model."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from comfy_api.latest import ComfyExtension, io

from .networks import Deaf, PoolingCodec


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
            def pipeline(self, *limit: Any) -> Any:
                return replace(super().pipeline(*limit), unet=Deaf(), vae=PoolingCodec())

        return io.NodeOutput(Cheap(**{field.name: getattr(model, field.name) for field in fields(model)}))


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [StandIn]
