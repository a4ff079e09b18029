"""`score`: measure the lip sync of a video."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from ..errors import python_command
from ..weights.catalog import STABLE_SYNCNET, SYNCNET
from ..weights.locate import exists, folders_in, require
from . import faces, options
from .device import add_device_options
from .pictures import check_png, write_png

EXAMPLE = """example:
  latentsync score out.mp4
  latentsync score talk.mp4 --audio speech.wav --json -o chart.png
"""


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    usage = "%(prog)s VIDEO [options]"
    parser = add("score", usage=usage, help="measure how well the lips in a video fit the sound", epilog=EXAMPLE)
    parser.set_defaults(command=score)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video to measure")
    parser.add_argument(
        "--audio", type=Path, metavar="FILE", help="sound that starts with the video. The default is the sound of VIDEO"
    )
    parser.add_argument("--audio-track", type=int, metavar="N", help="audio track of that sound, from 1")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="also draw the distance by offset and the confidence over time to this PNG",
    )
    parser.add_argument(
        "--stable-syncnet",
        action="store_true",
        help="also measure with LatentSync's own StableSyncNet, a file of 1.6 GB that you download yourself",
    )
    options.add_models_folder(parser)
    add_device_options(parser, precision=False)
    options.add_face_options(parser, occlusion=False)


def score(args: argparse.Namespace) -> None:
    """Print the score of one person. Measure only the mouth if SyncNet's weights are missing."""
    from ..audio.reader import read_mono
    from ..scoring.plot import plot_score
    from ..scoring.score import score_track
    from ..stages import load_syncnet
    from ..video.video_file import VideoFile
    from ..weights.loader import load_stable_syncnet
    from .device import chosen_device

    if args.output is not None:
        check_png(args.output, [args.video, args.audio, *options.face_files(args)])
    folders, device = folders_in(args.models), chosen_device(args.device)
    source, waveform = VideoFile(args.video), read_mono(args.audio or args.video, args.audio_track)
    select = faces.read_selection(args, source, waveform)
    syncnet = load_syncnet(folders, device=device) if exists(SYNCNET, folders) else None
    stable = load_stable_syncnet(require(STABLE_SYNCNET, folders)).to(device) if args.stable_syncnet else None
    if syncnet is None:
        command = python_command(f'latentsync download syncnet --models "{args.models}"')
        sys.stderr.write(
            f"note: the weights of SyncNet are missing, so there is no confidence. Run {command} to download them "
            f"({SYNCNET.size_bytes / 1e6:.0f} MB, {SYNCNET.license}).\n"
        )
    selection = select(faces.search(source, args))
    result = score_track(selection.track, waveform, syncnet=syncnet, stable_syncnet=stable, progress=True)
    for note in dict.fromkeys([*source.warnings(), *waveform.warnings]):
        sys.stderr.write(f"note: {note}\n")
    person, people = selection.identity.number, len(selection.identities.members)
    if args.json:
        report = {**result.to_json(), "person": person, "people": people}
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write(f"{source.name}: person {person} of {people}\n")
        sys.stdout.writelines(f"  {sentence}\n" for sentence in result.sentences())
    if args.output is not None:
        picture = BytesIO()
        plot_score(result).save(picture, "PNG")
        write_png(args.output, picture.getvalue())
