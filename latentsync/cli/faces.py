"""`faces`: who is in a video, without changing it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from .. import hub
from ..claim import claimed, write_whole
from ..errors import UsageError
from ..faces.detectors import open_detector
from ..faces.face_track import Smoothing, TrackSettings, build_face_track
from ..faces.identities import SELECT_BY, reference_appearance
from ..faces.identities import select as choose_person
from ..weights.catalog import MODELS
from . import options, output_options
from .progress import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from ..faces.detectors import Locate
    from ..faces.face_track import FaceTrack
    from ..faces.identities import Identities
    from ..faces.report import Selection
    from ..video.frame_source import FrameSource


class Choice(NamedTuple):
    """How the chosen face is followed, and the look that people are sorted by, if by one."""

    settings: TrackSettings
    reference: np.ndarray | None


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    job = add("faces", help="list the faces of a video")
    job.set_defaults(command=faces)
    job.add_argument("video", type=Path, help="the video to search")
    job.add_argument("--json", action="store_true", help="print JSON; its frame ranges are half-open")
    job.add_argument("-o", "--output", type=Path, help="also write a numbered crop of every face to this PNG")
    options.add_flag(job)
    add_flags(job)


def faces(options: argparse.Namespace) -> None:
    """Print who is in a video, and what would become of the chosen face."""
    from ..faces import report
    from ..video.video_file import VideoFile

    if options.output is not None:
        _check_output(options)
    choice = read_choice(options)
    people = search(VideoFile(options.video), options)
    chosen = choose(people, options, choice) if people.members else None
    said = (
        json.dumps(report.report_json(people, chosen), indent=2) if options.json else report.report_text(people, chosen)
    )
    sys.stdout.write(said + "\n")
    if options.output is not None:
        _write_crops(people, options.output)


def _check_output(options: argparse.Namespace) -> None:
    if options.output.suffix.lower() != ".png":
        raise UsageError(f"the crops are written as PNG: give -o a name that ends in .png, not {options.output.name!r}")
    output_options.check_place(options.output, [options.video, options.reference_face, options.landmarks])


def _write_crops(people: Identities, path: Path) -> None:
    from ..faces import report

    if not people.members:
        sys.stderr.write(f"note: nobody was found, so no picture was written to {path}\n")
        return
    picture = report.contact_sheet(list(report.identity_crops(people, MODELS["1.5"].resolution)))
    with claimed([path]):
        write_whole(path, picture)


def add_flags(job: argparse.ArgumentParser) -> None:
    """The flags that decide whose face is found and how it is followed."""
    defaults = TrackSettings()
    job.add_argument("--face", choices=SELECT_BY, default=SELECT_BY[0], help="whose lips: the order of people")
    job.add_argument("--face-index", type=int, default=0, help="0 takes the first of that order, 1 the second")
    job.add_argument("--reference-face", type=Path, help="a picture of the person: the most similar face is taken")
    job.add_argument("--min-confidence", type=float, default=0.5, help="how sure the face detector must be, 0 to 1")
    job.add_argument(
        "--max-gap", type=int, default=defaults.max_gap_frames, help="frames without the face that are bridged"
    )
    job.add_argument(
        "--max-yaw",
        type=float,
        default=defaults.max_yaw_degrees,
        help="degrees; a head turned further is as good as away",
    )
    job.add_argument(
        "--smoothing", choices=get_args(Smoothing), default=defaults.smoothing, help="how the crop is steadied"
    )
    job.add_argument("--landmarks", type=Path, help="face landmarks (JSON, as ComfyUI's FACE_LANDMARKS) to use instead")


def find_track(source: FrameSource, options: argparse.Namespace) -> FaceTrack:
    """The chosen face of a source, by the flags."""
    choice = read_choice(options)
    return choose(search(source, options), options, choice).track


def search(source: FrameSource, options: argparse.Namespace) -> Identities:
    """Everybody in a source, by detection or by landmarks from a file."""
    from ..faces import precomputed
    from ..faces.identities import cluster_tracks
    from ..faces.tracker import track_faces

    if options.landmarks is not None:
        given = precomputed.PrecomputedDetector(
            precomputed.from_comfyui(precomputed.read_json(options.landmarks), source)
        )
        return cluster_tracks(source, progress_bar(track_faces(source, given), "faces", source.frame_count))
    with (
        open_detector(_locate(options), options.min_confidence) as detector,
        closing(track_faces(source, detector)) as scanned,
    ):
        return cluster_tracks(source, progress_bar(scanned, "faces", source.frame_count))


def read_choice(options: argparse.Namespace) -> Choice:
    """What the flags say of the choice, refused here where it cannot be: the search may take long.

    Raises:
        UsageError: a number out of range.
        FaceError: no face in the reference picture.
    """
    from ..video.video_file import VideoFile

    settings = TrackSettings(options.max_gap, options.max_yaw, options.smoothing)
    if options.face_index < 0:
        raise UsageError(f"--face-index counts from 0, so it cannot be {options.face_index}")
    if options.reference_face is None:
        return Choice(settings, None)
    picture = next(VideoFile(options.reference_face).read([0]))
    with open_detector(_locate(options), options.min_confidence) as detector:
        return Choice(settings, reference_appearance(picture, detector))


def choose(people: Identities, options: argparse.Namespace, choice: Choice) -> Selection:
    """The chosen person and the track of their face."""
    from ..faces.report import Selection

    person = choose_person(people, options.face, options.face_index, choice.reference)
    track = build_face_track(people, person, choice.settings)
    flags = ("face", "face_index", "min_confidence")
    params = {**track.params, **{flag: getattr(options, flag) for flag in flags}}
    return Selection(person, replace(track, params=params), choice.settings)


def _locate(options: argparse.Namespace) -> Locate:
    folders = hub.folders_in(options.models)
    return lambda file: hub.require(file, folders)
