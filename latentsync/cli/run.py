"""`run`: lip-sync a video to a recording."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ScoreError, UsageError
from ..weights.catalog import MODELS
from ..weights.locate import folders_in
from . import faces, options
from .device import add_device_options

if TYPE_CHECKING:
    import numpy as np

    from ..models.syncnet import SyncNet
    from ..output.result import LipSyncResult
    from ..output.run_record import RunRecord
    from ..pipeline import LipSyncPipeline
    from ..video.frame_source import FrameSource

AUTO = "auto"
SYNTHETIC_WARNING = "warning: --synthetic uses tiny untrained weights, so the mouth will be noise."
EXAMPLE = """example:
  latentsync run talk.mp4 speech.wav -o out.mp4 --steps 20 --cfg 1.5
  latentsync run song.mp4 song.wav -o out.mp4 --vocals voice.wav --length-mode "audio (loop)"
"""


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    usage = "%(prog)s VIDEO AUDIO -o FILE [options]"
    parser = add("run", usage=usage, help="lip-sync a video to a recording", epilog=EXAMPLE)
    parser.set_defaults(command=run)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video whose lips will change")
    parser.add_argument("audio", type=Path, metavar="AUDIO", help="the speech: an audio file, or a video with sound")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the result: .mp4, .webm, .mov or .mkv"
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--version",
        choices=(AUTO, *sorted(MODELS)),
        default=AUTO,
        help="auto: the best on disk that fits the device",
    )
    group.add_argument("--unet", type=Path, metavar="FILE", help="a UNet file, such as a fine-tune; needs --version")
    group.add_argument("--vae", type=Path, metavar="FILE", help="a Stable Diffusion 1.x VAE to replace sd-vae-ft-mse")
    group.add_argument("--synthetic", action="store_true", help="use tiny untrained weights, to test the installation")
    options.add_models_folder(parser)
    add_device_options(parser)
    options.add_face_options(parser)
    options.add_audio_options(parser)
    options.add_sampler_options(parser)
    options.add_output_options(parser)
    group = parser.add_argument_group("score")
    group.add_argument(
        "--takes",
        type=int,
        default=1,
        metavar="COUNT",
        help="sample with so many seeds, from --seed up, and keep the result with the highest sync confidence; "
        "needs the weights of SyncNet (latentsync download syncnet)",
    )
    group.add_argument(
        "--min-sync-confidence",
        type=float,
        metavar="NUMBER",
        help="fail and write no video if the sync confidence is lower; real speech is typically 6 to 9",
    )


def run(args: argparse.Namespace) -> None:
    """Lip-sync a video and write it. With --save-record, also write how the run went, even if it failed."""
    from ..audio.reader import read_audio
    from ..output.output_path import reserve_path
    from ..output.result import LipSyncResult, check_output
    from ..output.run_record import Recorder, RunRecord, digest_file
    from ..pipeline import load_syncnet
    from ..video.video_file import VideoFile

    if args.takes < 1:
        raise UsageError(f'"--takes" cannot be {args.takes}. Choose 1 or a higher number.')
    inputs = {
        "audio": args.audio,
        "vocals": args.vocals,
        "face_landmarks": args.face_landmarks,
        "reference_face": args.reference_face,
        "protect_mask": args.protect_mask,
    }
    format, sampler, blend = options.output_format(args), options.sampler_settings(args), options.blend_settings(args)
    seeds = [replace(sampler, seed=sampler.seed + take).seed for take in range(args.takes)]
    options.check_output_path(args.output, [args.video, *inputs.values()])
    if args.save_record:
        options.check_record_path(args.output.with_suffix(".json"), [args.video, *inputs.values()])
    record = RunRecord(consent=args.consent, seed=args.seed)
    with reserve_path([args.output]), Recorder(args.output, record) if args.save_record else nullcontext():
        source, audio = VideoFile(args.video), read_audio(args.audio, args.audio_track)
        check_output(args.output, source, audio, format, crf=args.crf)
        protect = None if args.protect_mask is None else read_mask(args.protect_mask, source)
        select = faces.read_selection(args)
        pipeline = load_pipeline(args)
        is_scored = args.takes > 1 or args.min_sync_confidence is not None
        syncnet = load_syncnet(folders_in(args.models), device=pipeline.device) if is_scored else None
        features, _ = pipeline.encode_audio(
            audio, args.vocals, offset_ms=args.offset_ms, settings=options.audio_settings(args), progress=True
        )
        track = select(faces.search(source, args)).track
        noted = set(_print_notes([*audio.warnings, *source.warnings()], set()))  # what is known before the long work

        def take(seed: int) -> LipSyncResult:
            settings, length = replace(sampler, seed=seed), args.length_mode
            lips = pipeline.sample(track, features, settings, fps=args.output_fps, length=length, progress=True)
            return LipSyncResult((lips,), blend, protect)

        if syncnet is None:
            result = take(args.seed)
        else:
            result = best_take(((seed, take(seed)) for seed in seeds), syncnet, record, args.min_sync_confidence)
        if args.save_record:
            record.add_inputs(result.speakers, [digest_file(role, path) for role, path in inputs.items() if path])
        result.save(args.output, format=format, crf=args.crf, record=record, progress=True)
    _print_notes(result.warnings(format), noted)
    sys.stdout.write(f"{args.output}: {result.frame_count} frames, {result.synced_frame_count} of them with new lips\n")


def best_take(
    results: Iterable[tuple[int, LipSyncResult]],
    syncnet: SyncNet,
    record: RunRecord,
    min_confidence: float | None = None,
) -> LipSyncResult:
    """The result with the highest sync confidence, of results and their seeds. Prints and records each score.

    Raises:
        ScoreError: the best confidence is below the limit.
    """
    from ..output.run_record import Take
    from ..scoring.sync import FRAME_MS

    best: tuple[float, LipSyncResult] | None = None
    for seed, result in results:
        score = result.score(syncnet, progress=True)
        take = Take(seed, round(score.confidence, 3), round(score.distance, 3), FRAME_MS * score.offset_frames)
        record.takes.append(take)
        doubt = "" if score.sync is None or score.sync.is_trusted else " (too short to trust)"
        sys.stdout.write(f"{take}{doubt}\n")
        if best is None or score.confidence > best[0]:
            best = score.confidence, result
    if best is None or (min_confidence is not None and best[0] < min_confidence):
        numbers = ", ".join(f"{take.confidence:.2f} (seed {take.seed})" for take in record.takes)
        raise ScoreError(
            f"The sync confidence is below --min-sync-confidence {min_confidence}: {numbers}. No video was written. "
            "Try other seeds with --takes, or lower the limit."
        )
    return best[1]


def _print_notes(warnings: Iterable[str], known: set[str]) -> list[str]:
    """Print the warnings that are not known yet, and return them."""
    notes = [warning for warning in dict.fromkeys(warnings) if warning not in known]
    for note in notes:
        sys.stderr.write(f"note: {note}\n")
    return notes


def load_pipeline(args: argparse.Namespace) -> LipSyncPipeline:
    from ..pipeline import LipSyncPipeline
    from .device import chosen_device, chosen_dtype

    device = chosen_device(args.device)
    dtype = chosen_dtype(args.precision, device)
    if args.synthetic:
        sys.stderr.write(SYNTHETIC_WARNING + "\n")
        return LipSyncPipeline.untrained(device=device, dtype=dtype)
    return LipSyncPipeline.from_pretrained(
        None if args.version == AUTO else args.version,
        models_dir=args.models,
        device=device,
        dtype=dtype,
        unet=args.unet,
        vae=args.vae,
    )


def read_mask(path: Path, source: FrameSource) -> np.ndarray:
    """A mask from an image or a video: float32 (1 or source frames, H, W), 1 where the original pixel is kept.

    Raises:
        UsageError: it does not fit the source.
    """
    import numpy as np

    from ..compositing.compositor import check_protect_mask
    from ..video.color import to_float32
    from ..video.video_file import VideoFile

    file = VideoFile(path)
    mask = np.stack([to_float32(frame).mean(axis=-1) for frame in file.read(range(file.frame_count))])
    check_protect_mask(mask, source)
    return mask
