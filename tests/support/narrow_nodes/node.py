"""The node that makes one stage of a model run out of memory."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from comfy_api.latest import ComfyExtension, io

STAGES = ["unet", "encode", "decode", "whisper"]


def full() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("Allocation on device would exceed allowed memory. (out of memory)")


class Narrow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        model = io.Custom("LATENTSYNC_MODEL")
        return io.Schema(
            node_id="LatentSyncTestNarrow",
            display_name="Test: a stage without room",
            category="LatentSync/tests",
            inputs=[
                model.Input("model"),
                io.Combo.Input("stage", options=STAGES),
                io.Int.Input("holds", default=0, tooltip="So many clips or pictures at once; none is never."),
            ],
            outputs=[model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model: Any, stage: str, holds: int) -> io.NodeOutput:
        class WithoutRoom(type(model)):
            def pipeline(self, batch_limit: Any = None) -> Any:
                pipeline = super().pipeline(batch_limit)
                if stage == "unet":
                    return replace(pipeline, unet=Denoiser(pipeline.unet, holds))
                return replace(pipeline, whisper=FullEncoder()) if stage == "whisper" else pipeline

        given = {field.name: getattr(model, field.name) for field in fields(model)}
        # with no crops encoded by earlier prompts
        changed = {"vae": Codec(model.vae, stage, holds), "stores": WeakKeyDictionary()}
        return io.NodeOutput(WithoutRoom(**given | changed))


class Denoiser:
    def __init__(self, unet: Any, holds: int) -> None:
        self.precompute_audio_kv, self._unet, self._holds = unet.precompute_audio_kv, unet, holds

    def __call__(self, x: torch.Tensor, *given: Any, do_cfg: bool = False) -> Any:
        if len(x) * (1 + do_cfg) > self._holds:
            raise full()
        return self._unet(x, *given, do_cfg=do_cfg)


class FullEncoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        raise full()


class Codec:
    def __init__(self, codec: Any, stage: str, holds: int) -> None:
        self._codec, self._stage, self._holds = codec, stage, holds

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self._codec.encode(self._checked("encode", images))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._codec.decode(self._checked("decode", latents))

    def _checked(self, stage: str, batch: torch.Tensor) -> torch.Tensor:
        if stage == self._stage and len(batch) > self._holds:
            raise full()
        return batch


class Extension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Narrow]
