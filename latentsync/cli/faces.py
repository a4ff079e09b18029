"""`faces`: list the people in a video, without changing it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..faces.segmenters import NO_SEGMENTER, segmenter_entry
from ..weights.locate import folders_in, require
from . import options
from .console import native_logs_hidden
from .pictures import check_png, write_png

if TYPE_CHECKING:
    import torch

    from ..audio.mono import MonoSound
    from ..audio.waveform import Waveform
    from ..faces.identities import Identities
    from ..faces.report import Selection
    from ..video.frame_source import FrameSource

PREVIEW_PX = 256


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    example = "example:\n  latentsync faces talk.mp4 -o faces.png --face leftmost\n"
    usage = "%(prog)s VIDEO [options]"
    parser = add("faces", usage=usage, help="list the people in a video", epilog=example)
    parser.set_defaults(command=faces)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video to search")
    parser.add_argument(
        "--json", action="store_true", help="print JSON. The end of a frame range is not part of the range"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="also write a numbered crop of every face to this PNG. The selected face has a green border. With "
        "--occlusion, another crop tints the objects in front of the face",
    )
    options.add_models_folder(parser)
    options.add_face_options(parser)


def faces(args: argparse.Namespace) -> None:
    """Print the people in a video, and the frames in which the selected face would get new lips."""
    from ..faces import report
    from ..video.video_file import VideoFile

    if args.output is not None:
        check_png(args.output, [args.video, *options.face_files(args)])
    source = VideoFile(args.video)
    select = read_selection(args, source)
    check_segmenter(args)
    identities = search(source, args)
    selection = add_occlusion(select(identities), args) if identities.members else None
    if selection is not None:
        identities = selection.identities
    if args.json:
        sys.stdout.write(json.dumps(report.report_json(identities, selection), indent=2) + "\n")
    else:
        sys.stdout.write(report.report_text(identities, selection) + "\n")
    if args.output is not None:
        _write_crops(identities, selection, args.output)


def read_selection(
    args: argparse.Namespace, source: FrameSource, sound: Waveform | MonoSound | None = None
) -> Callable[[Identities], Selection]:
    """A function that selects the person from the flags. Wrong flags raise an error before the long search.

    Args:
        sound: sound to use in place of the sound of the source.

    Raises:
        UsageError: a number is out of range.
        FaceError: the reference picture has no face.
        AudioError: --face speaking has no sound.
    """
    from ..faces.detectors import open_detector
    from ..faces.identities import FaceAt, reference_appearance
    from ..stages import read_speech, select_face
    from ..video.video_file import VideoFile

    settings, at = options.track_settings(args), FaceAt.parse(args.face_at)
    if args.face_index < 1:
        raise UsageError(f'"--face-index" cannot be {args.face_index}. Choose 1 or a higher number.')
    reference = None
    if args.reference_face is not None:
        picture = next(VideoFile(args.reference_face).read([0]))
        locate = partial(require, folders=folders_in(args.models))
        with native_logs_hidden(), open_detector(locate, args.min_confidence) as detector:
            reference = reference_appearance(picture, detector)
    speech = args.speech_of_source or sound
    if args.face == "speaking" and reference is None:
        speech = read_speech(source, speech)
    return partial(
        select_face,
        face=args.face,
        index=args.face_index,
        reference=reference,
        at=at,
        speech_of_source=speech,
        settings=settings,
    )


def search(source: FrameSource, args: argparse.Namespace, progress: bool = True) -> Identities:
    """Find all people in a source, by detection or from landmarks in a file."""
    from ..faces import precomputed
    from ..stages import detect_faces

    with native_logs_hidden():
        return detect_faces(
            source,
            folders_in(args.models),
            min_confidence=args.min_confidence,
            landmarks=None if args.face_landmarks is None else precomputed.read_json(args.face_landmarks),
            progress=progress,
        )


def check_segmenter(args: argparse.Namespace) -> None:
    """Raise WeightsError if the model of --occlusion is missing. Call this before the slow stages."""
    if args.occlusion != NO_SEGMENTER:
        require(segmenter_entry(args.occlusion).file, folders_in(args.models))


def add_occlusion(
    selection: Selection, args: argparse.Namespace, progress: bool = True, device: torch.device | None = None
) -> Selection:
    """A copy of the selection whose track has the occlusion masks for --occlusion."""
    from ..faces.clip_segmenter import on_device
    from ..stages import find_occlusion

    if args.occlusion == NO_SEGMENTER:
        return selection
    with native_logs_hidden():
        track = find_occlusion(
            selection.track, folders_in(args.models), args.occlusion, place=on_device(device), progress=progress
        )
    return selection._replace(track=track)


def _write_crops(identities: Identities, selection: Selection | None, path: Path) -> None:
    from ..faces import report

    if not identities.members:
        sys.stderr.write(f"note: LatentSync found no face, so it wrote no picture to {path}\n")
        return
    write_png(path, report.contact_sheet(list(report.preview_crops(identities, PREVIEW_PX, selection))))
