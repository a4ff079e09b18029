"""`run`: lip-sync a video to a recording."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Hashable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import UsageError
from ..weights.locate import folders_in
from . import faces, options, outputs
from .cluster import add_cluster_options, check_cluster_options, check_version, open_workers
from .device import add_device_options
from .model import AUTO, add_model_options, load_pipeline, locate_model, model_key, worker_flags
from .takes import TAKES_SUFFIX, add_take_options, best_lips, continued, is_scored, takes_key

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ..audio.waveform import Waveform
    from ..faces.identities import Identities
    from ..faces.report import Selection
    from ..models.syncnet import SyncNet
    from ..output.result import LipSyncResult
    from ..output.takes import Sample
    from ..pipeline import LipSyncPipeline
    from ..sampling.lip_track import LipTrack
    from ..sampling.sampler import Workers
    from ..scoring.score import Score
    from ..video.frame_source import FrameSource
    from ..video.video_file import VideoFile

T = TypeVar("T")

INPUTS = (
    "video",
    "audio",
    "vocals",
    "background",
    "face_landmarks",
    "reference_face",
    "speech_of_source",
    "protect_mask",
)
NOT_RECORDED = {
    *INPUTS,
    "output",
    "version",
    "unet",
    "vae",
    "models",
    "device",
    "save_record",
    "cluster",
    "cpus_per_worker",
    "command",
}
"""Flags that do not change the result, or name files. The record has the hash or size of each file."""
EXAMPLE = """example:
  latentsync run talk.mp4 speech.wav -o out.mp4 --steps 20 --cfg 1.5
  latentsync run song.mp4 song.wav -o out.mp4 --vocals voice.wav --length-mode "audio (loop)"
"""


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    usage = "%(prog)s VIDEO AUDIO -o FILE [options]"
    parser = add("run", usage=usage, help="lip-sync a video to a recording", epilog=EXAMPLE)
    parser.set_defaults(command=run)
    add_job_options(parser)
    add_cluster_options(parser)


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of one video, which are the fields of a job of a batch."""
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video whose lips will change")
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="the speech: an audio file, or a video with sound")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the result: .mp4, .webm, .mov or .mkv"
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare all flags except the file names."""
    add_model_options(parser)
    options.add_models_folder(parser)
    add_device_options(parser)
    options.add_face_options(parser)
    options.add_audio_options(parser)
    options.add_sampler_options(parser)
    options.add_output_options(parser)
    options.add_background_options(parser)
    add_take_options(parser)


def run(args: argparse.Namespace) -> None:
    """Lip-sync a video and write the result. With --save-record, also write the run record, even if the run fails."""
    from ..output.output_path import reserve_path

    check_flags(args)
    check_cluster_options(args)
    with reserve_path([args.output]):
        if args.cluster is None:
            summary = make_video(args, Session())
        else:
            check_version(args)
            flags = worker_flags(args)
            _, files = locate_model(flags)
            with open_workers(args, partial(load_pipeline, flags), files) as workers:
                summary = make_video(args, Session(workers=workers))
    sys.stdout.write(f"{args.output}: {summary}\n")


def check_flags(args: argparse.Namespace) -> None:
    """Raise UsageError if a setting is out of range or the output is impossible. Opens no input."""
    options.output_format(args)
    options.sampler_settings(args).takes(args.takes)
    options.blend_settings(args)
    options.audio_settings(args)
    options.turns(args)
    options.track_settings(args)
    options.background_settings(args)
    if args.miniature and (args.version != AUTO or args.unet or args.vae):
        raise UsageError('"--miniature" has its own model files. Remove "--version", "--unet" and "--vae".')
    inputs = [getattr(args, name) for name in INPUTS]
    outputs.check_output_path(args.output, inputs)
    if args.save_record:
        outputs.check_record_path(args.output.with_suffix(".json"), inputs)


def make_video(args: argparse.Namespace, session: Session) -> str:
    """Write the video of a run and its record, and return a summary. Reserve the output before this call."""
    from ..output.result import LipSyncResult
    from ..output.run_record import Recorder, RunRecord, describe_source, digest_file
    from ..output.takes import TakeStore

    progress, format = session.progress, options.output_format(args)
    takes = options.sampler_settings(args).takes(args.takes)
    blend, background_settings = options.blend_settings(args), options.background_settings(args)
    record = RunRecord(consent=args.consent, seed=args.seed, flags=recorded_flags(args))
    with Recorder(args.output, record) if args.save_record else nullcontext():
        opened = open_inputs(args)
        pipeline = session.pipeline(args)
        syncnet = session.syncnet(args.models, pipeline.device) if is_scored(args) else None
        samples = speakers(args, session, opened)
        # known before sampling
        noted = set(_print_notes([*opened.audio.warnings, *opened.source.warnings()], set()))

        def result_of(*speakers: LipTrack) -> LipSyncResult:
            return LipSyncResult(speakers, blend, opened.protect, None, opened.background, background_settings)

        def score(syncnet: SyncNet, lips: LipTrack) -> Score:
            return result_of(lips).score(syncnet, progress=progress)

        named = [(role, getattr(args, role)) for role in INPUTS[1:]] if args.save_record or syncnet else []
        files = [digest_file(role, path) for role, path in named if path]
        store = TakeStore()
        if syncnet is not None:
            key = takes_key(record, [describe_source(opened.source), *files], pipeline)
            store = TakeStore.open(args.output.with_suffix(TAKES_SUFFIX), key)
        with continued(store):
            if syncnet is None:
                lips = [sample(takes[0]) for sample in samples]
            else:
                (sample,) = samples
                lips = [best_lips(args, takes, sample, partial(score, syncnet), store, record)]
            result = result_of(*lips)
            if args.save_record:
                record.add_inputs(result.speakers, files)
            result.save(args.output, format=format, crf=args.crf, record=record, progress=progress)
    _print_notes(result.warnings(format), noted)
    return f"{result.frame_count} frames, {result.synced_frame_count} of them with new lips"


def speakers(args: argparse.Namespace, session: Session, opened: Inputs) -> list[Sample]:
    """Functions that sample the lips, one function for each person who speaks."""
    from ..sampling.windows import check_speakers

    pipeline, progress = session.pipeline(args), session.progress
    features, _ = pipeline.encode_audio(
        opened.audio,
        args.vocals,
        offset_ms=args.offset_ms,
        settings=options.audio_settings(args),
        progress=progress,
    )
    turns = options.turns(args)
    spoken = [features.during(times) for times in turns.values()]
    people = session.faces(opened.source, args)
    selections = [opened.select(people, index=number) for number in turns]
    tracks = [selection.track for selection in selections]
    check_speakers(tracks, spoken, options.sampler_settings(args), args.output_fps, args.length_mode)
    tracks = [faces.add_occlusion(selection, args, progress, pipeline.device).track for selection in selections]
    sample = partial(pipeline.sample, fps=args.output_fps, length=args.length_mode, progress=progress)
    return [partial(sample, *person) for person in zip(tracks, spoken, strict=True)]


class Inputs(NamedTuple):
    """The opened files of a run. `select` returns the person with a number, in the order of the flags."""

    source: VideoFile
    audio: Waveform
    background: Waveform | None
    protect: np.ndarray | None
    select: Callable[..., Selection]


def open_inputs(args: argparse.Namespace) -> Inputs:
    """Open the files of a run and check that the output format supports them.

    Raises:
        LatentSyncError: a file is missing or damaged, does not fit the others, or the output cannot be written.
    """
    from ..audio.background import check_background
    from ..audio.reader import read_audio
    from ..output.result import check_output
    from ..video.timeline import check_length
    from ..video.video_file import VideoFile

    source, audio = VideoFile(args.video), read_audio(args.audio, args.audio_track)
    check_length(source, audio.duration_seconds, args.length_mode)
    faces.check_segmenter(args)
    background = None if args.background is None else read_audio(args.background)
    if background is not None:
        check_background(audio, background)
    check_output(args.output, source, audio, options.output_format(args), crf=args.crf)
    protect = None if args.protect_mask is None else read_mask(args.protect_mask, source)
    return Inputs(source, audio, background, protect, faces.read_selection(args, source))


class Session:
    """Data that the runs of one process share: the networks, and the faces of the last video.

    Runs do not share encoded face crops, because the batch size of the encoder can change the last digits. The result
    of a run therefore does not depend on the runs before it.

    Args:
        progress: draw progress bars.
        workers: workers of a cluster, which run the UNet and the VAE.
    """

    def __init__(self, *, progress: bool = True, workers: Workers | None = None) -> None:
        self.progress = progress
        self._workers = workers
        self._loaded: dict[str, tuple[Hashable, Any]] = {}

    def pipeline(self, args: argparse.Namespace) -> LipSyncPipeline:
        """The networks for the flags. Only the networks of the last call stay loaded."""
        return self._load_once("pipeline", model_key(args), lambda: load_pipeline(args, self._workers))

    def syncnet(self, models: Path, device: torch.device) -> SyncNet:
        """SyncNet from a models folder on a device."""
        from ..stages import load_syncnet

        return self._load_once("syncnet", (models, device), lambda: load_syncnet(folders_in(models), device=device))

    def faces(self, source: FrameSource, args: argparse.Namespace) -> Identities:
        """All faces in a video. Raises the errors of `faces.search`."""
        return self._load_once("faces", faces_key(args), lambda: faces.search(source, args, self.progress))

    def _load_once(self, name: str, key: Hashable, load: Callable[[], T]) -> T:
        """The value of the last call with this name if its key is the same. Otherwise, load a new value."""
        if name not in self._loaded or self._loaded[name][0] != key:
            self._loaded.pop(name, None)  # free its memory first
            self._loaded[name] = key, load()
        return self._loaded[name][1]


def new_worker() -> Callable[[argparse.Namespace], str]:
    """A function that makes the videos of jobs one after the other. The function keeps the networks and the faces."""
    return partial(make_video, session=Session(progress=False))


def faces_key(args: argparse.Namespace) -> Hashable:
    """A key that is equal for runs that find the same faces."""
    files = [path for path in (args.video, args.face_landmarks) if path is not None]
    states = tuple((path.absolute(), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return states, args.min_confidence, args.models


def recorded_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of a run for its record, without the files. The record lists the files separately."""
    return {name: value for name, value in sorted(vars(args).items()) if name not in NOT_RECORDED}


def _print_notes(warnings: Iterable[str], known: set[str]) -> list[str]:
    """Print the new warnings, and return them."""
    notes = [warning for warning in dict.fromkeys(warnings) if warning not in known]
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    return notes


def read_mask(path: Path, source: FrameSource) -> np.ndarray:
    """A mask from an image or a video: float32 (1 or original frames, H, W). 1 keeps the original pixel.

    Raises:
        UsageError: the mask does not fit the original video.
    """
    import numpy as np

    from ..compositing.compositor import check_protect_mask
    from ..video.color import to_float32
    from ..video.video_file import VideoFile

    file = VideoFile(path)
    mask = np.stack([to_float32(frame).mean(axis=-1) for frame in file.read(range(file.frame_count))])
    check_protect_mask(mask, source)
    return mask
