"""Audio Embed."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, get_args

from comfy_api.latest import io, ui
from typing_extensions import override

from ..latentsync.audio.features import AudioSettings, Segments, Silence
from . import conversions
from .io_types import CATEGORY, AudioEmbeds, Model, expect_type
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
            description="Encodes the speech for the Sampler, and plots where it detects speech. By default the result "
            "is as long as the audio.",
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
            inputs=[
                Model.Input("model", tooltip="Connect Load Model."),
                io.Audio.Input("audio", tooltip="Connect the new speech. The result has this audio, unchanged."),
                io.Audio.Input(
                    "vocals",
                    optional=True,
                    tooltip="Connect the voice alone for songs and noisy recordings. It drives the lips. The result "
                    "still has 'audio'. Both must start at the same time.",
                ),
                io.Combo.Input(
                    "silence",
                    options=list(get_args(Silence)),
                    default=defaults.silence,
                    tooltip="Choose the lips in pauses. model: like all other frames. keep original: original frames "
                    "(saves time). close mouth: lips for true silence.",
                ),
                io.Int.Input(
                    "offset_ms",
                    default=0,
                    min=-600_000,
                    max=600_000,
                    tooltip="Move the lips against the audio, in ms. Positive: later. Negative: earlier. Change it "
                    "where the lips lead or lag.",
                ),
                io.Float.Input(
                    "threshold_db",
                    default=defaults.threshold_db,
                    min=1.0,
                    max=20.0,
                    step=0.5,
                    advanced=True,
                    tooltip="Set how far speech must be above the background noise, in dB: the red line in the plot. "
                    "Raise it if noise counts as speech.",
                ),
                io.Int.Input(
                    "hold_ms",
                    default=round(1000 * defaults.hangover_s),
                    min=0,
                    max=5000,
                    step=20,
                    advanced=True,
                    tooltip="Set how long speech continues after its level drops, in ms. Shorter pauses count as "
                    "speech. Raise it if words are cut off.",
                ),
                io.Combo.Input(
                    "segments",
                    options=list(get_args(Segments)),
                    default=defaults.segments,
                    advanced=True,
                    tooltip="Choose how Whisper reads audio longer than 30 s. overlapping: smooth joins. official: "
                    "separate parts, to compare with the official code.",
                ),
            ],
            outputs=[AudioEmbeds.Output(display_name="audio_embeds", tooltip="Connect to Sampler.")],
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
        vocals: Mapping[str, Any] | None = None,
    ) -> io.NodeOutput:
        from ..latentsync.audio.driving_audio import prepare_driving_audio
        from ..latentsync.audio.plot import plot_speech

        expect_type("model", model, LoadedModel, "Load Model")
        settings = AudioSettings(silence, threshold_db, hold_ms / 1000, segments)
        waveform = conversions.waveform("audio", audio)
        driving = None if vocals is None else conversions.waveform("vocals", vocals)
        audio_embeds, speech = model.pipeline().encode_audio(
            waveform, driving, offset_ms=offset_ms, settings=settings, progress=with_progress
        )
        plot = plot_speech(speech, prepare_driving_audio(waveform, driving, Fraction(offset_ms, 1000)))
        return io.NodeOutput(audio_embeds, ui=ui.PreviewImage(conversions.picture(plot), cls=cls))
