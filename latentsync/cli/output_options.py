"""What the command line says of the finished video: how mouths are laid in, its format, its record."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..compositing.settings import BlendMode, BlendSettings, MaskEdge
from ..errors import UsageError
from ..output.formats import FORMATS, Format, format_for_suffix, format_named

if TYPE_CHECKING:
    from ..output.video_writer import VideoWriter
    from ..sampling.lip_track import LipTrack


def add_flags(job: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    blend, edge = BlendSettings(), MaskEdge()
    job.add_argument(
        "--blend",
        choices=get_args(BlendMode),
        default=blend.mode,
        help="mouth changes only what the model made anew; box lays in the whole crop, as the official program does",
    )
    job.add_argument(
        "--feather",
        type=float,
        default=100 * edge.feather,
        metavar="PERCENT",
        help="soft edge of blend mouth, of the face crop's width",
    )
    job.add_argument(
        "--grow",
        type=float,
        default=100 * edge.grow,
        metavar="PERCENT",
        help="widen the mask of blend mouth (negative: narrow it), of the face crop's width",
    )
    job.add_argument(
        "--color-match",
        action=argparse.BooleanOptionalAction,
        default=blend.color_match,
        help="give the mouth the colors that the skin around it has",
    )
    job.add_argument(
        "--format", choices=[form.name for form in FORMATS], help="of the video; otherwise by the output's suffix"
    )
    job.add_argument(
        "--crf",
        type=int,
        choices=range(52),
        metavar="0-51",
        default=18,
        help="quality of h264, h265 and vp9; lower is better",
    )
    job.add_argument("--record", action="store_true", help="write NAME.json beside the video: what it was made of")
    job.add_argument("--consent", default="", help="what the person who is seen agreed to; for the record and the tags")


def blend_settings(options: argparse.Namespace) -> BlendSettings:
    return BlendSettings(options.blend, MaskEdge(options.grow / 100, options.feather / 100), options.color_match)


def form_of(options: argparse.Namespace) -> Format:
    """The format that was asked for, or that the output's name asks for.

    Raises:
        UsageError: there is none, or the name does not fit it.
    """
    form = format_for_suffix(options.output.suffix) if options.format is None else format_named(options.format)
    if form.suffix != options.output.suffix.lower():
        raise UsageError(f"{form.name} needs a name that ends in {form.suffix}, not {options.output.name!r}")
    return form


def check(options: argparse.Namespace, inputs: Sequence[Path | None]) -> None:
    """Raises UsageError for an output that cannot be written, or that would replace an input."""
    blend_settings(options)
    form_of(options)
    for path in [options.output, *([options.output.with_suffix(".json")] if options.record else [])]:
        check_place(path, inputs)


def check_place(path: Path, inputs: Sequence[Path | None]) -> None:
    """Raises UsageError for a file to write that has no folder, or that would replace an input."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist: make it, or choose another output")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: choose another output")
    if path.exists() and any(given is not None and given.exists() and path.samefile(given) for given in inputs):
        raise UsageError(f"{path} is one of the inputs: choose another output")


def writer(lips: LipTrack, options: argparse.Namespace, tags: dict[str, str]) -> VideoWriter:
    from ..output.video_writer import VideoWriter

    source = lips.face_track.source
    return VideoWriter(
        options.output,
        rate=lips.timeline.rate,
        height=source.height,
        width=source.width,
        form=form_of(options),
        crf=options.crf,
        waveform=lips.waveform,
        tags=tags,
        color=source.color,
    )
