"""The Audio Embed node."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, get_args

from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.audio.features import AudioSettings, Segments, Silence
from . import conversions
from .io_types import CATEGORY, KEEPS_PREVIEW, AudioEmbeds, Model, expect_type
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
            description="Encodes the speech for the Sampler. The plot shows where the node detects speech. By "
            "default, the result is as long as the audio.",
            search_aliases=[
                "lip sync audio",
                "whisper embedding",
                "speech",
                "vocals",
                "silence",
                "dubbing",
                "audio driven",
                "\u914d\u97f3",
            ],
            **KEEPS_PREVIEW,
            inputs=[
                Model.Input("model", tooltip="Connect the output of Load Model."),
                io.Audio.Input("audio", tooltip="Connect the new speech. The finished video plays this audio."),
                io.Audio.Input(
                    "vocals",
                    optional=True,
                    tooltip="For songs and noisy recordings, connect only the voice. The voice drives the lips, "
                    "and the result plays 'audio'. Both recordings must start together.",
                ),
                io.Combo.Input(
                    "silence",
                    options=list(get_args(Silence)),
                    default=defaults.silence,
                    tooltip="Choose the lips in pauses. 'keep original' copies the original frames and saves time. "
                    "'close mouth' closes the lips. 'model' lets the model decide.",
                ),
                io.Int.Input(
                    "offset_ms",
                    default=0,
                    min=-600_000,
                    max=600_000,
                    tooltip="Set the delay of the lips, in ms. Negative values move the lips earlier. Change this "
                    "value if the lips are too early or too late.",
                ),
                io.Float.Input(
                    "threshold_db",
                    default=defaults.threshold_db,
                    min=1.0,
                    max=20.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Set how much louder than the background noise speech must be, in dB. The red line in the "
                    "plot shows this value. Raise the value if noise counts as speech.",
                ),
                io.Int.Input(
                    "hold_ms",
                    default=round(1000 * defaults.hangover_s),
                    min=0,
                    max=5000,
                    step=20,
                    advanced=True,
                    tooltip="Set how long detected speech continues after its level drops, in ms. Shorter pauses "
                    "count as speech. Raise the value if the node misses the ends of words.",
                ),
                io.Combo.Input(
                    "segments",
                    options=list(get_args(Segments)),
                    default=defaults.segments,
                    advanced=True,
                    tooltip="Choose how Whisper encodes audio longer than 30 s. 'overlapping' avoids jumps between "
                    "segments. 'official' uses separate segments, like the official code.",
                ),
                io.String.Input(
                    "turns",
                    default="",
                    advanced=True,
                    tooltip="Enter when this person speaks, in seconds of the result, such as 0-4.5, 9-12. Other "
                    "frames keep the original lips. For one speaker, leave the input empty.",
                ),
            ],
            outputs=[AudioEmbeds.Output(display_name="audio_embeds", tooltip="Connect this output to Sampler.")],
        )

    @classmethod
    @override
    def execute(
        cls,
        model: LoadedModel,
        audio: Mapping[str, Any] | None,
        silence: Silence,
        offset_ms: int,
        threshold_db: float,
        hold_ms: int,
        segments: Segments,
        turns: str,
        vocals: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.audio.driving_audio import prepare_driving_audio
        from ..latentsync.audio.plot import plot_speech
        from ..latentsync.audio.turns import parse_turns

        expect_type("model", model, LoadedModel, "Load Model")
        times = parse_turns(turns)
        settings = AudioSettings(silence, threshold_db, hold_ms / 1000, segments)
        waveform = conversions.waveform("audio", audio)
        driving = None if vocals is None else conversions.waveform("vocals", vocals)
        audio_embeds, speech = model.pipeline().encode_audio(
            waveform, driving, offset_ms=offset_ms, settings=settings, progress=with_progress
        )
        plot = plot_speech(speech, prepare_driving_audio(waveform, driving, Fraction(offset_ms, 1000)))
        return io.NodeOutput(audio_embeds.during(times), ui=ui.PreviewImage(conversions.picture(plot), cls=cls))
