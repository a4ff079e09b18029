"""Crops Out and Crops In: the generated faces as IMAGE for a face restorer, and back."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io
from typing_extensions import override

from ..latentsync.sampling.lip_track import LipTrack
from . import conversions
from .io_types import CATEGORY, Lips, expect_type
from .progress import with_progress


class LatentSyncCropsOut(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncCropsOut",
            display_name="LatentSync Crops Out",
            category=CATEGORY,
            description="Outputs the generated faces as upright images, for a face restorer or an upscaler. The node "
            "Crops In then inserts the restored faces. Each image needs 3 MB of RAM with model 1.6.",
            search_aliases=["lip sync crops", "face restore", "face crops"],
            inputs=[Lips.Input("lips", tooltip="Connect the output of Sampler.")],
            outputs=[io.Image.Output(display_name="crops", tooltip="One image for each frame with new lips.")],
        )

    @classmethod
    @override
    def execute(cls, lips: LipTrack) -> io.NodeOutput:
        from ..latentsync.compositing.compositor import decode_crops
        from ..latentsync.faces.alignment import crop_size

        expect_type("lips", lips, LipTrack, "Sampler")
        width, height = crop_size(lips.resolution)
        images = torch.empty(len(lips.latents), height, width, 3)
        for i, crop in enumerate(with_progress(decode_crops(lips), "crops", len(lips.latents))):
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
            description="Replaces the generated faces with the face crops of Crops Out, after a face restorer or "
            "an upscaler changed these crops. Keep the number and the order of the crops. The crops can have any "
            "size.",
            search_aliases=["lip sync crops", "face restore", "face crops"],
            inputs=[
                Lips.Input("lips", tooltip="Connect the same Sampler that you connected to Crops Out."),
                io.Image.Input("crops", tooltip="Connect all restored faces, in the same order."),
            ],
            outputs=[Lips.Output(display_name="lips", tooltip="Connect this output to Video Combine or To Images.")],
        )

    @classmethod
    @override
    def execute(cls, lips: LipTrack, crops: torch.Tensor) -> io.NodeOutput:
        expect_type("lips", lips, LipTrack, "Sampler")
        expect_type("crops", crops, torch.Tensor, "the node that restores the images of Crops Out")
        return io.NodeOutput(replace(lips, crops=crops[..., :3]))
