"""Sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from . import runtime
from .sockets import CATEGORY, Embeds, Faces, Lips, Model

if TYPE_CHECKING:
    from ..latentsync.types import AudioFeatures, FaceTrack
    from .runtime import LoadedModel

STEP_CACHE_OFF = "off"


class LatentSyncSampler(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncSampler",
            display_name="LatentSync Sampler",
            category=CATEGORY,
            description="Regenerates the mouth of every frame to fit the speech. Speech longer than the video plays it "
            "forwards and backwards; shorter speech cuts it. 25 frames per second.",
            search_aliases=["lip sync", "lipsync sampler", "talking head"],
            inputs=[
                Model.Input("model", tooltip="From Load Model."),
                Faces.Input("faces", tooltip="From Face Prep."),
                Embeds.Input("embeds", tooltip="From Audio Embed."),
                io.Int.Input(
                    "seed",
                    default=1247,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise. One noise serves the whole clip.",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=100,
                    tooltip="Denoising steps. 20 is what the model's authors use; more rarely helps.",
                ),
                io.Float.Input(
                    "guidance",
                    default=1.5,
                    min=1.0,
                    max=3.0,
                    step=0.1,
                    tooltip="How strongly the mouth follows the speech. Higher moves more, and may flicker; "
                    "1 turns it off and halves the time.",
                ),
                io.Combo.Input(
                    "step_cache",
                    options=[STEP_CACHE_OFF, "2", "3", "4", "5"],
                    default="3",
                    tooltip="Runs the whole network only every so many steps and its last layer in between. "
                    "3 is what the authors' own tools use; off is exact, and slower.",
                ),
            ],
            outputs=[Lips.Output(display_name="lips", tooltip="To Video Combine or To Images.")],
        )

    @classmethod
    @override
    def execute(
        cls,
        model: LoadedModel,
        faces: FaceTrack,
        embeds: AudioFeatures,
        seed: int,
        steps: int,
        guidance: float,
        step_cache: str,
    ) -> io.NodeOutput:
        from ..latentsync import pipeline
        from ..latentsync.sampling import draw_noise
        from ..latentsync.timeline import lay_out
        from ..latentsync.types import SamplerSettings

        settings = SamplerSettings(seed, steps, guidance, 1 if step_cache == STEP_CACHE_OFF else int(step_cache))
        timeline = lay_out(faces.source, embeds.waveform.duration_seconds)
        noise = draw_noise(seed, model.spec.resolution).to(model.device)
        samples = pipeline.sample(model.denoiser(), model.codec, faces, embeds, timeline, settings, noise, model.dtype)
        total = len(pipeline.plan(faces, embeds, timeline)) * steps
        lips = pipeline.collect(runtime.tracked(samples, total), faces, timeline, embeds.waveform, model.codec)
        return io.NodeOutput(lips)
