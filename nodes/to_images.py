"""To Images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from . import conversions, progress
from .blend_inputs import alpha_of, blend_inputs, blend_settings, lips_input, protect_input, protection, speakers
from .io_types import CATEGORY

if TYPE_CHECKING:
    import torch

    from ..latentsync.compositing.settings import BlendMode
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
        blend: BlendMode,
        feather: float,
        grow: float,
        color_match: bool,
        protect: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        import torch

        from ..latentsync.audio.waveform import mix
        from ..latentsync.compositing.compositor import composite, shared_timeline

        tracks = speakers(lips)
        timeline, source, alpha = shared_timeline(tracks), tracks[0].face_track.source, alpha_of(tracks[0])
        made = composite(tracks, blend_settings(blend, feather, grow, color_match), protection(protect))
        images = torch.empty(timeline.frame_count, source.height, source.width, 3 if alpha is None else 4)
        mask = torch.empty(timeline.frame_count, source.height, source.width)
        for i, (frame, original) in enumerate(progress.with_progress(made, timeline.frame_count)):
            images[i, ..., :3] = conversions.image(frame)
            if alpha is not None:
                images[i, ..., 3] = alpha[timeline.source_index[i]]
            mask[i] = torch.from_numpy((frame != original).any(axis=-1))
        sound = mix([track.waveform for track in tracks])
        return io.NodeOutput(images, mask, conversions.audio(sound), float(timeline.rate))
