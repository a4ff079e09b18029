"""To Images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from . import convert, runtime
from .sockets import CATEGORY, Lips

if TYPE_CHECKING:
    from ..latentsync.types import LipTrack


class LatentSyncToImages(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncToImages",
            display_name="LatentSync To Images",
            category=CATEGORY,
            description="Puts the lips back and gives the frames as IMAGE, for other nodes. All frames are held in "
            "memory (25 MB each at 1080p): for a long video use Video Combine.",
            search_aliases=["lip sync images", "lip sync frames"],
            inputs=[Lips.Input("lips", tooltip="From Sampler.")],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="The finished frames, with alpha where the source has it."
                ),
                io.Mask.Output(display_name="mask", tooltip="1 where a pixel differs from the source's, else 0."),
                io.Audio.Output(display_name="audio", tooltip="The speech, untouched."),
                io.Float.Output(display_name="fps", tooltip="Frames per second."),
            ],
        )

    @classmethod
    @override
    def execute(cls, lips: LipTrack) -> io.NodeOutput:
        import torch

        from ..latentsync import pipeline
        from ..latentsync.media import ImageBatch

        count, source = lips.timeline.frame_count, lips.track.source
        alpha = source.alpha if isinstance(source, ImageBatch) else None
        images = torch.empty(count, source.height, source.width, 3 if alpha is None else 4)
        mask = torch.empty(count, source.height, source.width)
        for i, made in enumerate(runtime.tracked(pipeline.composite(lips), count)):
            images[i, ..., :3] = convert.image(made.frame)
            if alpha is not None:
                images[i, ..., 3] = alpha[lips.timeline.source_index[i]]
            mask[i] = torch.from_numpy((made.frame != made.source).any(axis=-1))
        return io.NodeOutput(images, mask, convert.audio(lips.waveform), float(lips.timeline.rate))
