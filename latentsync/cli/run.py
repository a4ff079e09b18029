"""`run`: lip-sync a video to a recording."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..weights.catalog import MODELS
from . import faces, options
from .device import add_device_options

if TYPE_CHECKING:
    import numpy as np

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


def run(args: argparse.Namespace) -> None:
    """Lip-sync a video and write it. With --save-record, also write how the run went, even if it failed."""
    from ..audio.background import check_background
    from ..audio.reader import read_audio
    from ..output.output_path import reserve_path
    from ..output.result import LipSyncResult, check_output
    from ..output.run_record import Recorder, RunRecord, digest_file
    from ..video.timeline import check_length
    from ..video.video_file import VideoFile

    inputs = {
        "audio": args.audio,
        "vocals": args.vocals,
        "background": args.background,
        "face_landmarks": args.face_landmarks,
        "reference_face": args.reference_face,
        "protect_mask": args.protect_mask,
    }
    format, sampler, blend = options.output_format(args), options.sampler_settings(args), options.blend_settings(args)
    background_settings = options.background_settings(args)
    options.check_output_path(args.output, [args.video, *inputs.values()])
    if args.save_record:
        options.check_record_path(args.output.with_suffix(".json"), [args.video, *inputs.values()])
    record = RunRecord(consent=args.consent, seed=args.seed)
    with reserve_path([args.output]), Recorder(args.output, record) if args.save_record else nullcontext():
        source, audio = VideoFile(args.video), read_audio(args.audio, args.audio_track)
        check_length(source, audio.duration_seconds, args.length_mode)
        background = None if args.background is None else read_audio(args.background)
        if background is not None:
            check_background(audio, background)
        check_output(args.output, source, audio, format, crf=args.crf)
        protect = None if args.protect_mask is None else read_mask(args.protect_mask, source)
        select = faces.read_selection(args)
        pipeline = load_pipeline(args)
        features, _ = pipeline.encode_audio(
            audio, args.vocals, offset_ms=args.offset_ms, settings=options.audio_settings(args), progress=True
        )
        track = select(faces.search(source, args)).track
        noted = set(_print_notes([*audio.warnings, *source.warnings()], set()))  # what is known before the long work
        lips = pipeline.sample(track, features, sampler, fps=args.output_fps, length=args.length_mode, progress=True)
        result = LipSyncResult((lips,), blend, protect, None, background, background_settings)
        if args.save_record:
            record.add_inputs(result.speakers, [digest_file(role, path) for role, path in inputs.items() if path])
        result.save(args.output, format=format, crf=args.crf, record=record, progress=True)
    _print_notes(result.warnings(format), noted)
    sys.stdout.write(f"{args.output}: {result.frame_count} frames, {result.synced_frame_count} of them with new lips\n")


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
