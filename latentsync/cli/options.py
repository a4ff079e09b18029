"""Flags that several commands share, and the settings from these flags."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from typing_extensions import override

from ..audio.background import BackgroundSettings
from ..audio.features import AudioSettings, Segments, Silence
from ..audio.turns import Turn, parse_turns_of_people
from ..compositing.settings import BLENDERS, BlendSettings, MaskEdge
from ..errors import UsageError
from ..faces.detection import DEFAULT_MIN_CONFIDENCE
from ..faces.face_track import Smoothing, TrackSettings
from ..faces.identities import SELECT_BY
from ..faces.segmenters import NO_SEGMENTER, OCCLUSION
from ..output.formats import FORMATS, Format, format_for_suffix, format_named
from ..sampling.schedulers import SCHEDULERS
from ..sampling.settings import SPEEDS, SamplerSettings
from ..video.timeline import FpsMode, LengthMode
from ..weights.locate import DEFAULT_MODELS_DIR
from .takes import is_scored

BESIDE_PACK = Path(__file__).resolve().parents[2] / "models"  # in a checkout without ComfyUI


class HelpText(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults except for None, False and "", and keeps the lines of the example at the end."""

    @override
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == "":
            return action.help
        return super()._get_help_string(action)


def add_models_folder(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the models folder."""
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        default=BESIDE_PACK if BESIDE_PACK.is_dir() else DEFAULT_MODELS_DIR.expanduser(),
        help="models folder with ComfyUI's layout (latentsync/, vae/)",
    )


def add_face_options(parser: argparse.ArgumentParser, *, occlusion: bool = True) -> None:
    """Add the flags for selecting and tracking the face and, if `occlusion` is true, for objects in front of it."""
    defaults, group = TrackSettings(), parser.add_argument_group("face")
    group.add_argument("--face", choices=SELECT_BY, default=SELECT_BY[0], help="order of the people")
    group.add_argument(
        "--face-index",
        type=int,
        default=1,
        metavar="NUMBER",
        help='number of the person in this order, from 1. The command "faces" lists the people',
    )
    group.add_argument(
        "--face-at",
        default="",
        metavar="X,Y[,FRAME]",
        help="a point on the person's face. X and Y are pixels, and FRAME counts from 0. This person becomes number 1",
    )
    group.add_argument(
        "--reference-face", type=Path, metavar="IMAGE", help="image of the person. Orders the people by similarity"
    )
    group.add_argument(
        "--speech-of-source",
        type=Path,
        metavar="FILE",
        help="the sound of the original video, for --face speaking. The default is the sound of VIDEO",
    )
    group.add_argument(
        "--face-landmarks", type=Path, metavar="JSON", help="ComfyUI's FACE_LANDMARKS, in place of face detection"
    )
    group.add_argument(
        "--min-confidence",
        type=float,
        default=DEFAULT_MIN_CONFIDENCE,
        metavar="SCORE",
        help="lowest detection score, 0.05 to 1",
    )
    group.add_argument(
        "--max-gap",
        type=int,
        default=defaults.max_gap_frames,
        metavar="FRAMES",
        help="longest gap to fill if the detector misses the face",
    )
    group.add_argument(
        "--max-yaw",
        type=float,
        default=defaults.max_yaw_degrees,
        metavar="DEGREES",
        help="largest head turn. Frames with a larger turn count as frames without the face",
    )
    group.add_argument(
        "--smoothing",
        choices=get_args(Smoothing),
        default=defaults.smoothing,
        help="filter that smooths the position of the face crop. official is the filter of the official code",
    )
    if occlusion:
        group.add_argument(
            "--occlusion",
            choices=OCCLUSION,
            default=NO_SEGMENTER,
            help="auto keeps hands and objects in front of the new mouth, with a model of 16 MB (latentsync download "
            "occlusion). fine uses CLIPSeg, a model of 600 MB that you download yourself",
        )


def face_files(options: argparse.Namespace) -> list[Path | None]:
    """The files in the face flags."""
    return [options.reference_face, options.speech_of_source, options.face_landmarks]


def track_settings(options: argparse.Namespace) -> TrackSettings:
    return TrackSettings(options.max_gap, options.max_yaw, options.smoothing)


def add_audio_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the recording that drives the lips."""
    defaults, group = AudioSettings(), parser.add_argument_group("speech")
    group.add_argument(
        "--audio-track",
        type=int,
        metavar="N",
        help="audio track of AUDIO, from 1. The default is the track that players select",
    )
    group.add_argument(
        "--vocals", type=Path, metavar="FILE", help="only the voice, to drive the lips. The result plays AUDIO"
    )
    group.add_argument(
        "--silence",
        choices=get_args(Silence),
        default=defaults.silence,
        help="lips in pauses. model: the model generates the lips. keep original: the original frames. close mouth: "
        "lips for digital silence",
    )
    group.add_argument("--offset-ms", type=int, default=0, metavar="MS", help="delay of the lips, may be negative")
    group.add_argument(
        "--threshold-db",
        type=float,
        default=defaults.threshold_db,
        metavar="DB",
        help="level above the background noise that counts as speech, 1 to 20",
    )
    group.add_argument(
        "--hold-ms",
        type=int,
        default=round(1000 * defaults.hangover_s),
        metavar="MS",
        help="how long detected speech continues after its level drops",
    )
    group.add_argument(
        "--segments",
        choices=get_args(Segments),
        default=defaults.segments,
        help="segments of audio longer than 30 s for Whisper. official uses separate segments, like the official code",
    )
    group.add_argument(
        "--turns",
        default="",
        metavar="TIMES",
        help="when the person speaks, in seconds of the result, such as 0-4.5, 9-12. Other frames keep the original "
        'lips. For several people, in place of --face-index: "1: 0-4.5, 9-12 / 2: 4.5-9"',
    )


def audio_settings(options: argparse.Namespace) -> AudioSettings:
    return AudioSettings(options.silence, options.threshold_db, options.hold_ms / 1000, options.segments)


def turns(options: argparse.Namespace) -> Mapping[int, tuple[Turn, ...]]:
    """The number of each person who speaks, and their turns.

    Raises:
        UsageError: the text is not valid, or names several people while the flags also request takes.
    """
    people = parse_turns_of_people(options.turns, options.face_index)
    if len(people) > 1 and is_scored(options):
        raise UsageError(
            '"--takes" and "--min-sync-confidence" score one person, but "--turns" names several people. Remove '
            '"--turns" or the other two flags.'
        )
    return people


def add_sampler_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the sampler, and for the frame rate and length of the result."""
    defaults, group = SamplerSettings(), parser.add_argument_group("sampler")
    group.add_argument("--seed", type=int, default=defaults.seed, metavar="NUMBER", help="seed of the noise")
    group.add_argument(
        "--speed",
        choices=tuple(SPEEDS),
        default="balanced",
        help="preset of the flags below. A flag that differs from its default overrides the preset. exact takes 2.5 "
        "times as long as balanced. fast takes about a third of the time of balanced",
    )
    group.add_argument(
        "--preview-seconds",
        type=float,
        default=defaults.preview_seconds,
        metavar="SECONDS",
        help="make only the first seconds of the result, for a trial run. 0 makes the whole result",
    )
    group.add_argument(
        "--steps", type=int, default=defaults.num_inference_steps, metavar="COUNT", help="denoising steps"
    )
    group.add_argument(
        "--cfg",
        type=float,
        default=defaults.guidance_scale,
        metavar="SCALE",
        help="guidance scale, 1 to 3: how strongly the mouth follows the speech. 1 halves the time",
    )
    group.add_argument(
        "--sampler-name",
        choices=tuple(SCHEDULERS),
        default=defaults.scheduler,
        help="sampling algorithm. The official code uses ddim. dpmpp_2m and uni_pc need about 10 steps",
    )
    group.add_argument(
        "--length-mode",
        choices=get_args(LengthMode),
        default=get_args(LengthMode)[0],
        metavar="MODE",
        help="length of the result: "
        + ", ".join(f'"{mode}"' for mode in get_args(LengthMode))
        + ". The text in brackets says how the video becomes as long as the audio. stretch video allows 0.8 to 1.25 "
        "times the old length",
    )
    group.add_argument(
        "--output-fps",
        choices=get_args(FpsMode),
        default="auto",
        help="frame rate of the result. auto keeps 23 to 31 fps and changes other rates to 25 fps",
    )
    group.add_argument(
        "--deepcache-interval",
        type=int,
        default=defaults.cache_interval,
        metavar="STEPS",
        help="run the full UNet only every N steps, 1 to 10 (DeepCache). 1 turns DeepCache off",
    )
    group.add_argument(
        "--overlap",
        type=int,
        default=defaults.overlap,
        metavar="FRAMES",
        help="frames that neighboring windows of 16 frames share, 0 to 12",
    )
    for end in ("start", "end"):
        group.add_argument(
            f"--cfg-{end}-percent",
            type=float,
            default=getattr(defaults, f"guidance_{end}"),
            metavar="SHARE",
            help=f"share of the steps after which cfg {end}s, 0 to 1. Steps without cfg take half the time",
        )


def sampler_settings(options: argparse.Namespace) -> SamplerSettings:
    return SamplerSettings(
        seed=options.seed,
        num_inference_steps=options.steps,
        guidance_scale=options.cfg,
        cache_interval=options.deepcache_interval,
        scheduler=options.sampler_name,
        overlap=options.overlap,
        guidance_start=options.cfg_start_percent,
        guidance_end=options.cfg_end_percent,
        preview_seconds=options.preview_seconds,
    ).at_speed(options.speed)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for pasting the mouths and for writing the video."""
    blend, edge, group = BlendSettings(), MaskEdge(), parser.add_argument_group("output")
    names = [format.name for format in FORMATS]
    group.add_argument(
        "--format",
        choices=names,
        metavar="NAME",
        help="container and codec. The default depends on the extension of the output. One of "
        + ", ".join(f'"{x}"' for x in names),
    )
    group.add_argument(
        "--crf",
        type=int,
        choices=range(52),
        metavar="0-51",
        default=18,
        help="quality of h264, h265 and vp9. Lower values give a better picture",
    )
    group.add_argument(
        "--consent", default="", metavar="TEXT", help="what the person agreed to, for the record and the tags"
    )
    group.add_argument(
        "--paste-mode",
        choices=tuple(BLENDERS),
        default=blend.mode,
        help="mouth replaces only the mouth area. full crop pastes the whole face crop, like the official code",
    )
    group.add_argument(
        "--mask-feather",
        type=float,
        default=100 * edge.feather,
        metavar="PERCENT",
        help="soft edge of the mouth mask, in percent of the crop width",
    )
    group.add_argument(
        "--mask-expand",
        type=float,
        default=100 * edge.grow,
        metavar="PERCENT",
        help="enlarge the mouth mask, in percent of the crop width. Negative values shrink the mask",
    )
    group.add_argument(
        "--color-match",
        action=argparse.BooleanOptionalAction,
        default=blend.color_match,
        help="match the colors of the mouth to the skin around it",
    )
    group.add_argument(
        "--match-texture",
        action=argparse.BooleanOptionalAction,
        default=blend.match_texture,
        help="match the sharpness and grain of the mouth to the skin above it",
    )
    group.add_argument(
        "--protect-mask",
        type=Path,
        metavar="FILE",
        help="mask of pixels to keep: an image, or a video with one mask for each frame",
    )
    group.add_argument(
        "--save-record",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write NAME.json beside the video: model, settings, seed, file hashes, frame counts",
    )


def add_background_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the sound under the speech."""
    background, group = BackgroundSettings(), parser.add_argument_group("background")
    group.add_argument(
        "--background", type=Path, metavar="FILE", help="room sound, music and effects to mix under the speech"
    )
    group.add_argument(
        "--background-gain-db",
        type=float,
        default=background.gain_db,
        metavar="DB",
        help="level of the background, -40 to 40",
    )
    group.add_argument(
        "--ducking-db",
        type=float,
        default=background.ducking_db,
        metavar="DB",
        help="how much quieter the background is during speech, 0 to 40",
    )


def blend_settings(options: argparse.Namespace) -> BlendSettings:
    edge = MaskEdge(options.mask_expand / 100, options.mask_feather / 100)
    return BlendSettings(options.paste_mode, edge, options.color_match, options.match_texture)


def background_settings(options: argparse.Namespace) -> BackgroundSettings:
    return BackgroundSettings(options.background_gain_db, options.ducking_db)


def output_format(options: argparse.Namespace) -> Format:
    """The chosen format, or the format for the suffix of the output.

    Raises:
        UsageError: no format has this suffix, or the suffix does not fit the chosen format.
    """
    if options.format is None:
        return format_for_suffix(options.output.suffix)
    format = format_named(options.format)
    if format.suffix != options.output.suffix.lower():
        raise UsageError(
            f"{options.output.name} has the wrong extension. {format.name} needs a name that ends in {format.suffix}. "
            "Rename the output file."
        )
    return format
