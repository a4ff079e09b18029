"""Flags that several commands share, and the settings that they stand for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from typing_extensions import override

from ..audio.features import AudioSettings, Segments, Silence
from ..compositing.settings import BLENDERS, BlendSettings, MaskEdge
from ..errors import UsageError
from ..faces.face_track import Smoothing, TrackSettings
from ..faces.identities import SELECT_BY
from ..output.formats import FORMATS, Format, format_for_suffix, format_named
from ..sampling.schedulers import SCHEDULERS
from ..sampling.settings import SamplerSettings
from ..video.timeline import FpsMode, LengthMode

BESIDE_PACK = Path(__file__).resolve().parents[2] / "models"  # in a checkout without ComfyUI
CACHE = Path("~/.cache/latentsync")


class HelpText(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults except for None and False."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def add_models_folder(parser: argparse.ArgumentParser) -> None:
    """Where weights are found, and downloaded to."""
    parser.add_argument(
        "--models",
        type=Path,
        default=BESIDE_PACK if BESIDE_PACK.is_dir() else CACHE.expanduser(),
        help="models folder, laid out as ComfyUI's (latentsync/, vae/)",
    )


def add_face_options(parser: argparse.ArgumentParser) -> None:
    """Whose face is used, and how it is tracked."""
    defaults, group = TrackSettings(), parser.add_argument_group("face")
    group.add_argument("--face", choices=SELECT_BY, default=SELECT_BY[0], help="order in which people are numbered")
    group.add_argument("--face-index", type=int, default=0, help="0 takes the first person in that order")
    group.add_argument("--reference-face", type=Path, help="picture of the person: takes the most similar face")
    group.add_argument("--min-confidence", type=float, default=0.5, help="lowest score of a detected face, 0 to 1")
    group.add_argument(
        "--max-gap", type=int, default=defaults.max_gap_frames, help="longest gap to fill, in frames without the face"
    )
    group.add_argument(
        "--max-yaw",
        type=float,
        default=defaults.max_yaw_degrees,
        help="max head yaw in degrees; beyond it the face counts as missing",
    )
    group.add_argument(
        "--smoothing",
        choices=get_args(Smoothing),
        default=defaults.smoothing,
        help="how the crop is smoothed over time",
    )
    group.add_argument("--landmarks", type=Path, help="JSON with ComfyUI's FACE_LANDMARKS, in place of a detector")


def track_settings(options: argparse.Namespace) -> TrackSettings:
    return TrackSettings(options.max_gap, options.max_yaw, options.smoothing)


def add_audio_options(parser: argparse.ArgumentParser) -> None:
    """How the recording drives the lips."""
    defaults, group = AudioSettings(), parser.add_argument_group("speech")
    group.add_argument("--vocals", type=Path, help="the voice alone: drives the lips, while AUDIO is the sound")
    group.add_argument(
        "--silence",
        choices=get_args(Silence),
        default=defaults.silence,
        help="frames without speech: as the model does, keep the original frames, or close the mouth",
    )
    group.add_argument(
        "--threshold-db",
        type=float,
        default=defaults.threshold_db,
        help="level above the background noise that counts as speech, 1 to 20",
    )
    group.add_argument(
        "--hang-ms",
        type=int,
        default=round(1000 * defaults.hangover_s),
        help="how long speech continues after its level has dropped",
    )
    group.add_argument("--offset-ms", type=int, default=0, help="move the lips later; negative: earlier")
    group.add_argument(
        "--segments",
        choices=get_args(Segments),
        default=defaults.segments,
        help="how audio is cut for Whisper; upstream compares with the official code",
    )


def audio_settings(options: argparse.Namespace) -> AudioSettings:
    return AudioSettings(options.silence, options.threshold_db, options.hang_ms / 1000, options.segments)


def add_sampler_options(parser: argparse.ArgumentParser) -> None:
    """How the mouths are sampled, and the frame rate and length of the result."""
    defaults, group = SamplerSettings(), parser.add_argument_group("sampler")
    group.add_argument("--seed", type=int, default=defaults.seed, help="seed of the noise")
    group.add_argument("--steps", type=int, default=defaults.num_inference_steps, help="denoising steps")
    group.add_argument("--guidance", type=float, default=defaults.guidance_scale, help="guidance scale, 1 to 3")
    group.add_argument(
        "--step-cache", type=int, default=defaults.cache_interval, help="DeepCache: full UNet every N steps; 1 is off"
    )
    group.add_argument(
        "--scheduler",
        choices=tuple(SCHEDULERS),
        default=defaults.scheduler,
        help="sampling algorithm: ddim matches the official code; dpm++ 2m and unipc need about 10 steps",
    )
    group.add_argument(
        "--overlap", type=int, default=defaults.overlap, help="frames that a window of 16 shares with the next, 0 to 12"
    )
    for end in ("start", "end"):
        group.add_argument(
            f"--guidance-{end}",
            type=float,
            default=getattr(defaults, f"guidance_{end}"),
            help=f"share of the steps at which guidance {end}s, 0 to 1; a step without it takes half the time",
        )
    group.add_argument(
        "--fps",
        choices=get_args(FpsMode),
        default="auto",
        help="auto: the video's own rate from 23 to 31, else 25, which the model was trained on",
    )
    group.add_argument(
        "--length",
        choices=get_args(LengthMode),
        default="ping-pong",
        help="as long as the audio (a shorter video plays forwards and backwards, loops, or holds its last frame), "
        "as long as the video, or as the shorter of the two",
    )


def sampler_settings(options: argparse.Namespace) -> SamplerSettings:
    return SamplerSettings(
        seed=options.seed,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
        cache_interval=options.step_cache,
        scheduler=options.scheduler,
        overlap=options.overlap,
        guidance_start=options.guidance_start,
        guidance_end=options.guidance_end,
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """How mouths are pasted into the frames, and how the video is written."""
    blend, edge, group = BlendSettings(), MaskEdge(), parser.add_argument_group("output")
    group.add_argument(
        "--blend",
        choices=tuple(BLENDERS),
        default=blend.mode,
        help="mouth replaces only the mouth area; box pastes the whole face crop, like the official code",
    )
    group.add_argument(
        "--feather",
        type=float,
        default=100 * edge.feather,
        metavar="PERCENT",
        help="soft edge of the mouth mask, in percent of the crop width",
    )
    group.add_argument(
        "--grow",
        type=float,
        default=100 * edge.grow,
        metavar="PERCENT",
        help="widen the mouth mask (negative: narrow it), in percent of the crop width",
    )
    group.add_argument(
        "--color-match",
        action=argparse.BooleanOptionalAction,
        default=blend.color_match,
        help="match the colors of the mouth to the skin around it",
    )
    group.add_argument("--protect", type=Path, help="mask of pixels to keep: an image, or a video with a mask a frame")
    group.add_argument("--format", choices=[format.name for format in FORMATS], help="default: by the output's suffix")
    group.add_argument(
        "--crf",
        type=int,
        choices=range(52),
        metavar="0-51",
        default=18,
        help="quality of h264, h265, vp9; lower is better",
    )
    group.add_argument("--record", action="store_true", help="write NAME.json beside the video: what it was made of")
    group.add_argument("--consent", default="", help="what the person agreed to, for the record and the tags")


def blend_settings(options: argparse.Namespace) -> BlendSettings:
    return BlendSettings(options.blend, MaskEdge(options.grow / 100, options.feather / 100), options.color_match)


def output_format(options: argparse.Namespace) -> Format:
    """The chosen format, or the one that the suffix of the output stands for.

    Raises:
        UsageError: there is none, or the suffix does not fit it.
    """
    if options.format is None:
        return format_for_suffix(options.output.suffix)
    format = format_named(options.format)
    if format.suffix != options.output.suffix.lower():
        raise UsageError(f"{options.output.name} does not end in {format.suffix}, as {format.name} needs. Rename it.")
    return format


def check_output_path(path: Path, inputs: Sequence[Path | None]) -> None:
    """Raises UsageError for an output that has no folder, is a folder, or is one of the inputs."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist. Create it, or choose another output.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Choose another output.")
    if path.exists() and any(file is not None and file.exists() and path.samefile(file) for file in inputs):
        raise UsageError(f"{path} is one of the inputs. Choose another output.")
