"""Audio Embed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from typing_extensions import override

from . import convert, runtime
from .sockets import CATEGORY, Embeds, Model

if TYPE_CHECKING:
    from .runtime import LoadedModel


class LatentSyncAudioEmbed(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncAudioEmbed",
            display_name="LatentSync Audio Embed",
            category=CATEGORY,
            description="Listens to the speech. The finished video lasts as long as this sound.",
            search_aliases=["lip sync audio", "whisper embedding", "speech"],
            inputs=[
                Model.Input("model", tooltip="From Load Model."),
                io.Audio.Input("audio", tooltip="The new speech. It is heard, untouched, in the finished video."),
            ],
            outputs=[Embeds.Output(display_name="embeds", tooltip="To Sampler.")],
        )

    @classmethod
    @override
    def execute(cls, model: LoadedModel, audio: Mapping[str, Any] | None) -> io.NodeOutput:
        import torch

        from ..latentsync import pipeline
        from ..latentsync.audio import SEGMENT_SECONDS
        from ..latentsync.types import AudioFeatures

        sound = convert.waveform(audio)
        segments = -(-sound.duration_seconds // SEGMENT_SECONDS)
        states = torch.cat(list(runtime.tracked(pipeline.embed(sound, model.encoder()), int(segments))))
        return io.NodeOutput(AudioFeatures(states, sound))
