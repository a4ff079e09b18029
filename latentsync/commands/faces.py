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
from ..face.choose import ORDERS, reference_look
from ..face.choose import choose as choose_person
from ..face.follow import FollowSettings, follow
from ..spec import FACE_LANDMARKER, MODELS
from ..types import Smoothing
from . import models_folder, output
from .progress import shown

if TYPE_CHECKING:
    import numpy as np

    from ..face.people import People
    from ..face.report import Chosen
    from ..media import FrameSource
    from ..types import FaceTrack


class Choice(NamedTuple):
    """How the chosen face is followed, and the look that people are sorted by, if by one."""

    settings: FollowSettings
    reference: np.ndarray | None


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    job = add("faces", help="list the faces of a video")
    job.set_defaults(command=faces)
    job.add_argument("video", type=Path, help="the video to search")
    job.add_argument("--json", action="store_true", help="print JSON; its frame ranges are half-open")
    job.add_argument("-o", "--output", type=Path, help="also write a numbered crop of every face to this PNG")
    models_folder.add_flag(job)
    add_flags(job)


def faces(options: argparse.Namespace) -> None:
    """Print who is in a video, and what would become of the chosen face."""
    from ..face import report
    from ..media import VideoFile

    if options.output is not None:
        _check_output(options)
    choice = read_choice(options)
    people = search(VideoFile(options.video), options)
    chosen = choose(people, options, choice) if people.persons else None
    said = json.dumps(report.table(people, chosen), indent=2) if options.json else report.text(people, chosen)
    sys.stdout.write(said + "\n")
    if options.output is not None:
        _write_crops(people, options.output)


def _check_output(options: argparse.Namespace) -> None:
    if options.output.suffix.lower() != ".png":
        raise UsageError(f"the crops are written as PNG: give -o a name that ends in .png, not {options.output.name!r}")
    output.check_place(options.output, [options.video, options.reference_face, options.landmarks])


def _write_crops(people: People, path: Path) -> None:
    from ..face import report

    if not people.persons:
        sys.stderr.write(f"note: nobody was found, so no picture was written to {path}\n")
        return
    picture = report.sheet(list(report.crops(people, MODELS["1.5"].resolution)))
    with claimed([path]):
        write_whole(path, picture)


def add_flags(job: argparse.ArgumentParser) -> None:
    """The flags that decide whose face is found and how it is followed."""
    defaults = FollowSettings()
    job.add_argument("--face", choices=ORDERS, default=ORDERS[0], help="whose lips: the order of people")
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


def search(source: FrameSource, options: argparse.Namespace) -> People:
    """Everybody in a source, by detection or by landmarks from a file."""
    from ..face import landmarks
    from ..face.detect import FaceDetector
    from ..face.people import gather
    from ..face.track import scan

    if options.landmarks is not None:
        given = landmarks.GivenFaces(landmarks.from_comfyui(landmarks.read_json(options.landmarks), source))
        return gather(source, shown(scan(source, given), "faces", source.frame_count))
    with (
        FaceDetector(_landmarker(options), options.min_confidence) as detector,
        closing(scan(source, detector)) as scanned,
    ):
        return gather(source, shown(scanned, "faces", source.frame_count))


def read_choice(options: argparse.Namespace) -> Choice:
    """What the flags say of the choice, refused here where it cannot be: the search may take long.

    Raises:
        UsageError: a number out of range.
        FaceError: no face in the reference picture.
    """
    from ..face.detect import FaceDetector
    from ..media import VideoFile

    settings = FollowSettings(options.max_gap, options.max_yaw, options.smoothing)
    if options.face_index < 0:
        raise UsageError(f"--face-index counts from 0, so it cannot be {options.face_index}")
    if options.reference_face is None:
        return Choice(settings, None)
    picture = next(VideoFile(options.reference_face).read([0]))
    with FaceDetector(_landmarker(options), options.min_confidence) as detector:
        return Choice(settings, reference_look(picture, detector))


def choose(people: People, options: argparse.Namespace, choice: Choice) -> Chosen:
    """The chosen person and the track of their face."""
    from ..face.report import Chosen

    person = choose_person(people, options.face, options.face_index, choice.reference)
    track = follow(people, person, choice.settings)
    flags = ("face", "face_index", "min_confidence")
    made_with = {**track.made_with, **{flag: getattr(options, flag) for flag in flags}}
    return Chosen(person, replace(track, made_with=made_with), choice.settings)


def _landmarker(options: argparse.Namespace) -> Path:
    return hub.require(FACE_LANDMARKER, hub.folders_in(options.models))
