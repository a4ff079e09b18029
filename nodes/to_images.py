"""The To Images node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from . import conversions
from .blend_inputs import (
    check_paste_mode,
    lip_sync_result,
    lips_input,
    match_texture_input,
    paste_inputs,
    protect_mask_input,
)
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
            description="Pastes the new lips into the video and outputs the frames as an IMAGE batch, for other "
            "nodes. Images and mask need 33 MB of RAM for each 1080p frame. Use Video Combine for long videos.",
            search_aliases=["lip sync images", "lip sync frames", "\u5bf9\u53e3\u578b"],
            inputs=[lips_input(), protect_mask_input(), *paste_inputs(), match_texture_input()],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="The finished frames. The frames have an alpha channel if the original frames have an "
                    "alpha channel.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="A mask: 1 where a pixel differs from the original frame, and 0 elsewhere.",
                ),
                io.Audio.Output(
                    display_name="audio",
                    tooltip="The speech. If there are several speakers, the output is the mix of their speech.",
                ),
                io.Float.Output(display_name="fps", tooltip="The frame rate, in fps."),
            ],
        )

    @classmethod
    @override
    def validate_inputs(cls, lips: object = None, color_match: object = None, paste_mode: object = "") -> bool | str:
        """ComfyUI always passes `lips`, and shows the error at the other inputs. Old graphs have only `color_match`."""
        return check_paste_mode(paste_mode)

    @classmethod
    @override
    def execute(
        cls,
        lips: Mapping[str, LipTrack],
        paste_mode: str,
        mask_feather: float,
        mask_expand: float,
        color_match: bool,
        match_texture: bool,
        protect_mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        import torch

        result = lip_sync_result(lips, paste_mode, mask_feather, mask_expand, color_match, match_texture, protect_mask)
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
