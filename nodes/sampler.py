"""Sampler."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from comfy_api.latest import io
from typing_extensions import override

from ..latentsync.sampling.schedulers import SCHEDULERS
from ..latentsync.sampling.settings import MAX_OVERLAP
from . import model_folders, model_handle, progress
from .io_types import CATEGORY, Embeds, Faces, Lips, Model, expect_type

if TYPE_CHECKING:
    from ..latentsync.audio.features import AudioFeatures
    from ..latentsync.faces.face_track import FaceTrack
    from ..latentsync.video.timeline import FpsMode, LengthMode
    from .model_handle import LoadedModel

STEP_CACHE_OFF = "off"
LENGTHS: dict[str, LengthMode] = {
    "audio, ping-pong": "ping-pong",
    "audio, loop": "loop",
    "audio, hold last": "hold",
    "video": "video",
    "shortest": "shortest",
}


class LatentSyncSampler(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LatentSyncSampler",
            display_name="LatentSync Sampler",
            category=CATEGORY,
            description="Regenerates the mouth of every frame to fit the speech. Speech longer than the video plays it "
            "forwards and backwards, shorter speech cuts it; `length` changes that.",
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
                io.Combo.Input(
                    "fps",
                    options=["auto", "25", "source"],
                    default="auto",
                    tooltip="Frames per second of the result. auto keeps the source's exact rate from 23 to 31 and is "
                    "25, the model's own, otherwise; source always keeps it, also where the lips may suffer.",
                ),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default=next(iter(LENGTHS)),
                    tooltip="How long the result is. As the audio: a longer video is cut; a shorter one plays forwards "
                    "and backwards, over again, or rests on its last frame. As the video: the audio is cut, or "
                    "followed by silence with the video as it was. shortest: ends with whichever ends first.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(SCHEDULERS),
                    default="ddim",
                    tooltip="How the noise is taken away. ddim is the authors' own; dpm++ 2m and unipc are made for "
                    "fewer steps: set steps to 10 with them.",
                ),
                io.Int.Input(
                    "overlap",
                    default=0,
                    min=0,
                    max=MAX_OVERLAP,
                    tooltip="Frames that one window of 16 shares with the next, blended, for clips where a jump shows "
                    "every 16 frames. 4 takes a third longer, 8 twice as long.",
                ),
                io.Float.Input(
                    "guidance_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Share of the steps after which guidance begins. A step without it takes half the time.",
                ),
                io.Float.Input(
                    "guidance_end",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Share of the steps after which guidance ends. A step without it takes half the time.",
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
        fps: FpsMode,
        length: str,
        scheduler: str,
        overlap: int,
        guidance_start: float,
        guidance_end: float,
    ) -> io.NodeOutput:
        from ..latentsync.audio.features import AudioFeatures
        from ..latentsync.faces.face_track import FaceTrack
        from ..latentsync.sampling import sampler
        from ..latentsync.sampling.lip_track import Provenance
        from ..latentsync.sampling.settings import SamplerSettings
        from ..latentsync.video.timeline import build_timeline, output_rate

        began = monotonic()
        expect_type("model", model, model_handle.LoadedModel, "Load Model")
        expect_type("faces", faces, FaceTrack, "Face Prep")
        expect_type("embeds", embeds, AudioFeatures, "Audio Embed")
        cache = 1 if step_cache == STEP_CACHE_OFF else int(step_cache)
        settings = SamplerSettings(seed, steps, guidance, cache, scheduler, overlap, guidance_start, guidance_end)
        rate = output_rate(faces.source.rate, fps)
        timeline = build_timeline(faces.source, embeds.waveform.duration_seconds, rate, LENGTHS[length])
        room = model.room()
        samples = sampler.sample_windows(
            model.denoiser(room),
            model.vae,
            faces,
            embeds,
            timeline,
            settings,
            model.spec.resolution,
            device=model.device,
            dtype=model.dtype,
            batch_limit=room,
        )
        total = sampler.num_sampling_steps(faces, embeds, timeline, settings)
        lips = sampler.build_lip_track(
            progress.with_progress(samples, total),
            faces,
            timeline,
            embeds.waveform,
            model.vae,
            model_folders.temp_folder(),
        )
        asked = {"fps": fps, "length": LENGTHS[length]}
        seconds = monotonic() - began
        origin = Provenance.from_stages(model.spec.version, model.files, faces, embeds, settings, asked, seconds)
        return io.NodeOutput(replace(lips, provenance=origin))
