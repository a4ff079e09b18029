"""Audio Embed."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, get_args

from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.audio.features import AudioSettings, Segments, Silence
from . import conversions
from .io_types import CATEGORY, Embeds, Model, expect_type
from .model_handle import LoadedModel
from .progress import with_progress


class LatentSyncAudioEmbed(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        defaults = AudioSettings()
        return io.Schema(
            node_id="LatentSyncAudioEmbed",
            display_name="LatentSync Audio Embed",
            category=CATEGORY,
            description="Listens to the speech, and draws where it hears some: shaded in the picture. By default "
            "the finished video lasts as long as the sound.",
            search_aliases=["lip sync audio", "whisper embedding", "speech", "vocals", "silence"],
            inputs=[
                Model.Input("model", tooltip="From Load Model."),
                io.Audio.Input("audio", tooltip="The new sound. It is heard, untouched, in the finished video."),
                io.Audio.Input(
                    "vocals",
                    optional=True,
                    tooltip="The voice alone, for songs and noisy recordings: it drives the lips, and 'audio' is "
                    "heard. Both begin together; it may be shorter or longer.",
                ),
                io.Combo.Input(
                    "silence",
                    options=list(get_args(Silence)),
                    default=defaults.silence,
                    tooltip="Frames in which nobody speaks. as is: the network decides, as its authors have it. keep "
                    "source: the source's own frames, untouched, faded over three; saves time. close mouth: the "
                    "network hears true silence there.",
                ),
                io.Float.Input(
                    "threshold_db",
                    default=defaults.threshold_db,
                    min=1.0,
                    max=20.0,
                    step=0.5,
                    tooltip="How far sound must stand out of its background to count as speech. Higher takes less for "
                    "speech. The red line in the picture.",
                ),
                io.Int.Input(
                    "hang_ms",
                    default=round(1000 * defaults.hangover_s),
                    min=0,
                    max=5000,
                    step=20,
                    tooltip="How long speech is taken to go on after it has faded: shorter pauses are not cut out.",
                ),
                io.Int.Input(
                    "offset_ms",
                    default=0,
                    min=-600_000,
                    max=600_000,
                    tooltip="Moves the lips against the sound: positive is later, negative is earlier.",
                ),
                io.Combo.Input(
                    "segments",
                    options=list(get_args(Segments)),
                    default=defaults.segments,
                    tooltip="Whisper hears 30 seconds at a time. overlapping: without a jump at each cut. upstream: "
                    "cut as the official program cuts, to compare with it.",
                ),
            ],
            outputs=[Embeds.Output(display_name="embeds", tooltip="To Sampler.")],
        )

    @classmethod
    @override
    def execute(
        cls,
        model: LoadedModel,
        audio: Mapping[str, Any] | None,
        silence: Silence,
        threshold_db: float,
        hang_ms: int,
        offset_ms: int,
        segments: Segments,
        vocals: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.audio.driving_audio import prepare_driving_audio
        from ..latentsync.audio.plot import plot_speech

        expect_type("model", model, LoadedModel, "Load Model")
        settings = AudioSettings(silence, threshold_db, hang_ms / 1000, segments)
        waveform = conversions.waveform("audio", audio)
        driving = None if vocals is None else conversions.waveform("vocals", vocals)
        embeds, speech = model.pipeline().encode_audio(
            waveform, driving, offset_ms=offset_ms, settings=settings, progress=with_progress
        )
        plot = plot_speech(speech, prepare_driving_audio(waveform, driving, Fraction(offset_ms, 1000)))
        return io.NodeOutput(embeds, ui=ui.PreviewImage(conversions.picture(plot), cls=cls))
