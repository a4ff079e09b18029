"""The Sampler node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args
from weakref import ref

from comfy_api.latest import io
from typing_extensions import override

from ..latentsync.sampling.schedulers import SCHEDULERS
from ..latentsync.sampling.settings import MAX_OVERLAP, SPEEDS, SamplerSettings
from ..latentsync.video.timeline import FpsMode, LengthMode
from .io_types import CATEGORY, AudioEmbeds, FaceTracks, Lips, Model, expect_type
from .live_preview import LivePreview
from .model_handle import LoadedModel
from .progress import show_text, with_oom_message, with_progress

if TYPE_CHECKING:
    from ..latentsync.audio.features import AudioFeatures
    from ..latentsync.faces.face_track import FaceTrack
    from ..latentsync.models.syncnet import SyncNet
    from ..latentsync.output.takes import TakeStore
    from ..latentsync.sampling.lip_track import LipTrack, Take
    from ..latentsync.scoring.score import Score
    from .model_handle import ComfyVAE


class LatentSyncSampler(io.ComfyNode):
    @classmethod
    @override
    def define_schema(cls) -> io.Schema:
        defaults = SamplerSettings()
        return io.Schema(
            node_id="LatentSyncSampler",
            display_name="LatentSync Sampler",
            category=CATEGORY,
            description="Generates a new mouth for every frame to match the speech. If the speech is longer than "
            "the video, the video plays forwards and backwards. If the speech is shorter, the node cuts the video. "
            "To choose another length, set `length_mode`.",
            search_aliases=[
                "lip sync",
                "lipsync",
                "lipsync sampler",
                "talking head",
                "talking avatar",
                "dubbing",
                "audio driven",
                "wav2lip",
                "musetalk",
                "deepcache",
                "guidance scale",
                "latentsyncwrapper",
                "\u5bf9\u53e3\u578b",
                "\u53e3\u578b\u540c\u6b65",
                "\u914d\u97f3",
            ],
            inputs=[
                Model.Input("model", tooltip="Connect the output of Load Model."),
                FaceTracks.Input("face_track", tooltip="Connect the output of Face Prep."),
                AudioEmbeds.Input("audio_embeds", tooltip="Connect the output of Audio Embed."),
                io.Int.Input(
                    "seed",
                    default=defaults.seed,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Set the seed of the noise. Another seed gives different lips. All frames use the same "
                    "noise.",
                ),
                io.Int.Input(
                    "steps",
                    default=defaults.num_inference_steps,
                    min=1,
                    max=100,
                    tooltip="Set the number of denoising steps. More steps take more time. The official code uses "
                    "20 steps. With dpmpp_2m or uni_pc, use 10 steps.",
                ),
                io.Float.Input(
                    "cfg",
                    default=defaults.guidance_scale,
                    min=1.0,
                    max=3.0,
                    step=0.1,
                    tooltip="Set how strongly the mouth follows the speech (guidance scale). Higher values cause "
                    "more movement and flicker. 1 turns guidance off and halves the time.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=list(SCHEDULERS),
                    default=defaults.scheduler,
                    tooltip="Choose the sampling algorithm. The official code uses ddim. dpmpp_2m and uni_pc need "
                    "only about 10 steps. To halve the time, also set steps to 10.",
                ),
                io.Combo.Input(
                    "length_mode",
                    options=list(get_args(LengthMode)),
                    default=get_args(LengthMode)[0],
                    tooltip="Choose the length of the result: audio, video, or the shorter of both. The text in "
                    "brackets says how the node makes the video as long as the audio.",
                ),
                io.Combo.Input(
                    "output_fps",
                    options=list(get_args(FpsMode)),
                    default="auto",
                    tooltip="Choose the frame rate. 'auto' keeps 23 to 31 fps, and changes other rates to 25 fps. "
                    "'source' keeps all rates, but the lips may look worse.",
                ),
                io.Combo.Input(
                    "speed",
                    options=list(SPEEDS),
                    default="balanced",
                    tooltip="Choose a preset. 'exact' takes 2.5 times as long as 'balanced'. 'fast' takes about a "
                    "third of the time of 'balanced'. Changed inputs override the preset.",
                ),
                io.Float.Input(
                    "preview_seconds",
                    default=defaults.preview_seconds,
                    min=0.0,
                    max=36_000.0,
                    step=0.5,
                    tooltip="For a trial run, set how many seconds of the result to make. 0 makes the whole result. "
                    "Face Prep reads the whole video, but only in the first run.",
                ),
                io.Int.Input(
                    "deepcache_interval",
                    default=defaults.cache_interval,
                    min=1,
                    max=10,
                    advanced=True,
                    tooltip="Run the full UNet only every N steps (DeepCache). The official code uses 3. 1 turns "
                    "DeepCache off. The result is then exact, but the run takes longer.",
                ),
                io.Int.Input(
                    "overlap",
                    default=defaults.overlap,
                    min=0,
                    max=MAX_OVERLAP,
                    advanced=True,
                    tooltip="Set how many frames neighboring windows share. Raise the value if the mouth jumps "
                    "every 16 frames. 4 takes a third longer than 0. 8 takes twice as long.",
                ),
                io.Float.Input(
                    "cfg_start_percent",
                    default=defaults.guidance_start,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="Start guidance (cfg) after this share of the steps. 0 is the start of the first step. "
                    "1 is the end of the last step. Steps without guidance take half the time.",
                ),
                io.Float.Input(
                    "cfg_end_percent",
                    default=defaults.guidance_end,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="End guidance (cfg) after this share of the steps. 1 is the end of the last step. "
                    "Lower the value to save time. Steps without guidance take half the time.",
                ),
                io.Int.Input(
                    "takes",
                    default=1,
                    min=1,
                    max=100,
                    advanced=True,
                    tooltip="Set how many seeds to try. The first is 'seed'. The node keeps the lips with the best "
                    "sync. N seeds take N times as long. Needs SyncNet (see Score).",
                ),
            ],
            outputs=[
                Lips.Output(
                    display_name="lips", tooltip="Connect this output to Video Combine, To Images or Crops Out."
                )
            ],
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
        preview_seconds: float,
        deepcache_interval: int,
        overlap: int,
        cfg_start_percent: float,
        cfg_end_percent: float,
        takes: int,
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
            preview_seconds=preview_seconds,
        ).at_speed(speed)
        pipeline = model.pipeline(model.batch_limit())
        sample = partial(pipeline.sample, face_track, audio_embeds, fps=output_fps, length=length_mode)
        if takes == 1:
            return io.NodeOutput(sample(settings, progress=partial(with_progress, preview=LivePreview(model.vae))))
        syncnet = with_oom_message(pipeline.load_syncnet)
        setup = ref(audio_embeds), replace(settings, seed=0), output_fps, length_mode
        store = model.take_store(face_track, setup)
        return io.NodeOutput(sample_best(settings.takes(takes), sample, syncnet, store, model.vae))


def sample_best(
    takes: Sequence[SamplerSettings],
    sample: Callable[..., LipTrack],
    syncnet: SyncNet,
    store: TakeStore,
    vae: ComfyVAE,
) -> LipTrack:
    """The lips with the highest sync confidence. The node shows each score immediately.

    Args:
        sample: `LipSyncPipeline.sample` of one person and one recording.
        store: the takes of earlier runs.
        vae: VAE of the live preview.
    """
    from ..latentsync.output.result import LipSyncResult
    from ..latentsync.output.takes import best_of, best_take, score_takes

    scores: list[Take] = []

    def show(items: Iterator[Any], stage: str, total: int) -> Iterator[Any]:
        heading = "\n".join([*map(str, scores), f"Take {min(len(scores) + 1, len(takes))} of {len(takes)}: "])
        if stage == "lips":
            return with_progress(items, stage, total, LivePreview(vae, heading))
        show_text(f"{heading}measuring the sync")
        return with_progress(items, stage, total)

    def score(lips: LipTrack) -> Score:
        return with_oom_message(lambda: LipSyncResult((lips,)).score(syncnet, progress=show))

    sample_and_show = partial(sample, progress=show)
    for take in score_takes(takes, sample_and_show, score, store):
        scores.append(take)
    lips = best_take(takes, sample_and_show, store)
    show_text("\n".join([*map(str, scores), f"The lips come from seed {best_of(scores).seed}."]))
    return lips
