"""`run`: give a video new speech."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
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

SYNTHETIC_WARNING = (
    "warning: --synthetic uses tiny untrained weights: everything runs, but the mouth will be noise, not speech."
)


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    parser = add("run", help="lip-sync a video to a recording")
    parser.set_defaults(command=run)
    parser.add_argument("video", type=Path, help="the video whose lips will move")
    parser.add_argument("audio", type=Path, help="the speech: any audio file, or a video with sound")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the result: .mp4, .webm, .mov or .mkv")
    group = parser.add_argument_group("model")
    group.add_argument("--version", choices=sorted(MODELS), help="default: the best on disk that fits the device")
    group.add_argument("--unet", type=Path, help="a UNet file to use, such as a fine-tune; needs --version")
    group.add_argument("--vae", type=Path, help="a Stable Diffusion 1.x VAE to use in place of sd-vae-ft-mse")
    group.add_argument("--synthetic", action="store_true", help="tiny untrained weights, to try the machinery")
    options.add_models_folder(parser)
    add_device_options(parser)
    options.add_face_options(parser)
    options.add_audio_options(parser)
    options.add_sampler_options(parser)
    options.add_output_options(parser)


def run(args: argparse.Namespace) -> None:
    """Give a video new speech and write it. With --record, write down how the run went, also if it failed."""
    from ..audio.reader import read_audio
    from ..output.output_path import reserve_path
    from ..output.result import LipSyncResult
    from ..output.run_record import Recorder, RunRecord, digest_file
    from ..output.video_writer import check_audio_codec
    from ..video.video_file import VideoFile

    inputs = {
        "audio": args.audio,
        "vocals": args.vocals,
        "landmarks": args.landmarks,
        "reference face": args.reference_face,
        "protect": args.protect,
    }
    format, sampler, blend = options.output_format(args), options.sampler_settings(args), options.blend_settings(args)
    for path in [args.output, *([args.output.with_suffix(".json")] if args.record else [])]:
        options.check_output_path(path, [args.video, *inputs.values()])
    record = RunRecord(consent=args.consent, seed=args.seed)
    with reserve_path([args.output]), Recorder(args.output, record) if args.record else nullcontext():
        source, audio = VideoFile(args.video), read_audio(args.audio)
        check_audio_codec(audio, format.audio)
        protect = None if args.protect is None else read_mask(args.protect, source)
        select = faces.read_selection(args)
        pipeline = load_pipeline(args)
        features, _ = pipeline.encode_audio(
            audio, args.vocals, offset_ms=args.offset_ms, settings=options.audio_settings(args), progress=True
        )
        track = select(faces.search(source, args)).track
        lips = pipeline.sample(track, features, sampler, fps=args.fps, length=args.length, progress=True)
        result = LipSyncResult((lips,), blend, protect)
        if args.record:
            record.add_inputs(result.speakers, [digest_file(role, path) for role, path in inputs.items() if path])
        result.save(args.output, format=format, crf=args.crf, record=record, progress=True)
    for warning in source.warnings():
        sys.stderr.write(f"note: {warning}\n")
    sys.stdout.write(f"{args.output}: {result.frame_count} frames, {result.synced_frame_count} of them with new lips\n")


def load_pipeline(args: argparse.Namespace) -> LipSyncPipeline:
    from ..pipeline import LipSyncPipeline
    from .device import chosen_device, chosen_dtype

    device = chosen_device(args.device)
    dtype = chosen_dtype(args.precision, device)
    if args.synthetic:
        sys.stderr.write(SYNTHETIC_WARNING + "\n")
        return LipSyncPipeline.untrained(device=device, dtype=dtype)
    return LipSyncPipeline.from_pretrained(
        args.version, models_dir=args.models, device=device, dtype=dtype, unet=args.unet, vae=args.vae
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
