"""Sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from comfy_api.latest import io
from typing_extensions import override

from ..latentsync.sampling.schedulers import SCHEDULERS
from ..latentsync.sampling.settings import MAX_OVERLAP, SPEEDS, SamplerSettings
from ..latentsync.video.timeline import FpsMode, LengthMode
from .io_types import CATEGORY, AudioEmbeds, FaceTracks, Lips, Model, expect_type
from .model_handle import LoadedModel
from .progress import with_progress

if TYPE_CHECKING:
    from ..latentsync.audio.features import AudioFeatures
    from ..latentsync.faces.face_track import FaceTrack


class LatentSyncSampler(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        defaults = SamplerSettings()
        return io.Schema(
            node_id="LatentSyncSampler",
            display_name="LatentSync Sampler",
            category=CATEGORY,
            description="Generates a new mouth for every frame, to match the speech. If the speech is longer, the "
            "video plays forwards and backwards. If it is shorter, the video is cut. `length_mode` changes this.",
            search_aliases=[
                "lip sync",
                "lipsync sampler",
                "talking head",
                "talking avatar",
                "dubbing",
                "audio driven",
                "wav2lip",
                "deepcache",
                "guidance scale",
                "latentsyncwrapper",
                "\u5bf9\u53e3\u578b",
                "\u53e3\u578b\u540c\u6b65",
                "\u914d\u97f3",
            ],
            inputs=[
                Model.Input("model", tooltip="Connect Load Model."),
                FaceTracks.Input("face_track", tooltip="Connect Face Prep."),
                AudioEmbeds.Input("audio_embeds", tooltip="Connect Audio Embed."),
                io.Int.Input(
                    "seed",
                    default=defaults.seed,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Set the seed of the noise. Change it to get other lips. All frames use the same noise.",
                ),
                io.Int.Input(
                    "steps",
                    default=defaults.num_inference_steps,
                    min=1,
                    max=100,
                    tooltip="Set the number of denoising steps. The time grows with it. The official code uses 20. "
                    "Use 10 with dpmpp_2m and uni_pc.",
                ),
                io.Float.Input(
                    "cfg",
                    default=defaults.guidance_scale,
                    min=1.0,
                    max=3.0,
                    step=0.1,
                    tooltip="Set the guidance scale: how strongly the mouth follows the speech. Higher moves more and "
                    "may flicker. 1 turns it off and halves the time.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=list(SCHEDULERS),
                    default=defaults.scheduler,
                    tooltip="Choose the sampling algorithm. ddim matches the official code. dpmpp_2m and uni_pc need "
                    "about 10 steps, which halves the time.",
                ),
                io.Combo.Input(
                    "length_mode",
                    options=list(get_args(LengthMode)),
                    default=get_args(LengthMode)[0],
                    tooltip="Choose the length of the result: as the audio (a shorter video plays on as the brackets "
                    "say), as the video, or as the shorter of both.",
                ),
                io.Combo.Input(
                    "output_fps",
                    options=list(get_args(FpsMode)),
                    default="auto",
                    tooltip="Choose the frame rate of the result. auto keeps 23 to 31 fps, and else gives 25, the "
                    "model's rate. source keeps every rate, and the lips may be worse.",
                ),
                io.Combo.Input(
                    "speed",
                    options=list(SPEEDS),
                    default="balanced",
                    tooltip="Choose a preset: exact takes 2.5 times as long as balanced, fast about a third. Inputs "
                    "that differ from their defaults override it.",
                ),
                io.Int.Input(
                    "deepcache_interval",
                    default=defaults.cache_interval,
                    min=1,
                    max=10,
                    advanced=True,
                    tooltip="Run the full UNet only every N steps (DeepCache). The official tools use 3. 1 turns it "
                    "off, which is exact and slower. Higher is faster and less exact.",
                ),
                io.Int.Input(
                    "overlap",
                    default=defaults.overlap,
                    min=0,
                    max=MAX_OVERLAP,
                    advanced=True,
                    tooltip="Blend this many frames of neighboring windows. Raise it if the mouth jumps every 16 "
                    "frames. 4 takes a third longer, 8 twice as long.",
                ),
                io.Float.Input(
                    "cfg_start_percent",
                    default=defaults.guidance_start,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Start cfg after this share of the steps: 0 at the first, 1 after the last. Steps without "
                    "cfg take half the time.",
                ),
                io.Float.Input(
                    "cfg_end_percent",
                    default=defaults.guidance_end,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="End cfg after this share of the steps: 0 at the first, 1 after the last. Lower it to save "
                    "time. Steps without cfg take half the time.",
                ),
            ],
            outputs=[Lips.Output(display_name="lips", tooltip="Connect to Video Combine, To Images or Crops Out.")],
        )

    @classmethod
    @override
    def execute(
        cls,
        model: LoadedModel,
        face_track: FaceTrack,
        audio_embeds: AudioFeatures,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        length_mode: LengthMode,
        output_fps: FpsMode,
        speed: str,
        deepcache_interval: int,
        overlap: int,
        cfg_start_percent: float,
        cfg_end_percent: float,
    ) -> io.NodeOutput:
        from ..latentsync.audio.features import AudioFeatures
        from ..latentsync.faces.face_track import FaceTrack

        expect_type("model", model, LoadedModel, "Load Model")
        expect_type("face_track", face_track, FaceTrack, "Face Prep")
        expect_type("audio_embeds", audio_embeds, AudioFeatures, "Audio Embed")
        settings = SamplerSettings(
            seed=seed,
            num_inference_steps=steps,
            guidance_scale=cfg,
            cache_interval=deepcache_interval,
            scheduler=sampler_name,
            overlap=overlap,
            guidance_start=cfg_start_percent,
            guidance_end=cfg_end_percent,
        ).at_speed(speed)
        pipeline = model.pipeline(model.batch_limit())
        lips = pipeline.sample(
            face_track, audio_embeds, settings, fps=output_fps, length=length_mode, progress=with_progress
        )
        return io.NodeOutput(lips)
