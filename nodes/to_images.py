"""To Images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from . import conversions
from .blend_inputs import blend_inputs, lip_sync_result, lips_input, protect_input
from .io_types import CATEGORY
from .progress import with_progress

if TYPE_CHECKING:
    import torch

    from ..latentsync.sampling.lip_track import LipTrack


class LatentSyncToImages(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncToImages",
            display_name="LatentSync To Images",
            category=CATEGORY,
            description="Puts the lips back and gives the frames as IMAGE, for other nodes. All frames are held in "
            "memory (33 MB each at 1080p, the mask included): for a long video use Video Combine.",
            search_aliases=["lip sync images", "lip sync frames"],
            inputs=[lips_input(), *blend_inputs(), protect_input()],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="The finished frames, with alpha where the source has it."
                ),
                io.Mask.Output(display_name="mask", tooltip="1 where a pixel differs from the source's, else 0."),
                io.Audio.Output(display_name="audio", tooltip="The speech, untouched; of several speakers, their mix."),
                io.Float.Output(display_name="fps", tooltip="Frames per second."),
            ],
        )

    @classmethod
    @override
    def execute(
        cls,
        lips: Mapping[str, LipTrack],
        blend: str,
        feather: float,
        grow: float,
        color_match: bool,
        protect: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        import torch

        result = lip_sync_result(lips, blend, feather, grow, color_match, protect)
        timeline, source = result.timeline, result.source
        images = torch.empty(timeline.frame_count, source.height, source.width, 4 if source.has_alpha else 3)
        mask = torch.empty(timeline.frame_count, source.height, source.width)
        for i, (frame, original) in enumerate(result.composite(progress=with_progress)):
            images[i, ..., :3] = conversions.image(frame)
            mask[i] = torch.from_numpy((frame != original).any(axis=-1))
        if source.has_alpha:
            for i, channel in enumerate(result.alpha()):
                images[i, ..., 3] = torch.from_numpy(channel)
        return io.NodeOutput(images, mask, conversions.audio(result.waveform), float(timeline.rate))
