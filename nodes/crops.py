"""The decoded faces out as IMAGE, for a restorer, and back in."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io
from typing_extensions import override

from ..latentsync.sampling.lip_track import LipTrack
from . import conversions, progress
from .io_types import CATEGORY, Lips, expect_type


class LatentSyncCropsOut(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncCropsOut",
            display_name="LatentSync Crops Out",
            category=CATEGORY,
            description="The new faces alone, upright and in true proportions, for a face restorer or an upscaler. "
            "Crops In puts them back. All are held in memory: 3 MB each with model 1.6.",
            search_aliases=["lip sync crops", "face restore", "face crops"],
            inputs=[Lips.Input("lips", tooltip="From Sampler.")],
            outputs=[io.Image.Output(display_name="crops", tooltip="One for each frame with new lips.")],
        )

    @classmethod
    @override
    def execute(cls, lips: LipTrack) -> io.NodeOutput:
        from ..latentsync.compositing.compositor import decode_crops
        from ..latentsync.faces.alignment import crop_size

        expect_type("lips", lips, LipTrack, "Sampler")
        width, height = crop_size(lips.resolution)
        images = torch.empty(len(lips.latents), height, width, 3)
        for i, crop in enumerate(progress.with_progress(decode_crops(lips), len(lips.latents))):
            images[i] = conversions.image(crop)
        return io.NodeOutput(images)


class LatentSyncCropsIn(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncCropsIn",
            display_name="LatentSync Crops In",
            category=CATEGORY,
            description="Puts the faces of Crops Out back, after a restorer or an upscaler: as many, in the same "
            "order, of any size.",
            search_aliases=["lip sync crops", "face restore", "face crops"],
            inputs=[
                Lips.Input("lips", tooltip="The same that went into Crops Out."),
                io.Image.Input("crops", tooltip="The restored faces."),
            ],
            outputs=[Lips.Output(display_name="lips", tooltip="To Video Combine or To Images.")],
        )

    @classmethod
    @override
    def execute(cls, lips: LipTrack, crops: torch.Tensor) -> io.NodeOutput:
        expect_type("lips", lips, LipTrack, "Sampler")
        expect_type("crops", crops, torch.Tensor, "the node that restores Crops Out's images")
        return io.NodeOutput(replace(lips, crops=crops[..., :3]))
