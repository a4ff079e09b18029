"""`run`: give a video new speech."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from .. import hub
from ..errors import UsageError
from ..spec import MODELS
from ..timeline import Length, RateChoice
from ..types import HearingSettings, SamplerSettings, Segments, Silence
from . import faces
from .device import card_bytes, chosen_device
from .progress import followed, shown

if TYPE_CHECKING:
    import torch

    from ..models.whisper import WhisperEncoder
    from ..sampling import Denoiser
    from ..types import AudioFeatures, Codec, LipTrack, Waveform

SYNTHETIC_WARNING = (
    "warning: --synthetic uses tiny untrained weights: everything runs, but the mouth will be noise, not speech."
)


@dataclass(frozen=True)
class Models:
    """The networks of a run, on their device. `resolution` is the side of the crop in pixels, `dtype` the UNet's."""

    unet: Denoiser
    encoder: WhisperEncoder
    codec: Codec
    resolution: int
    device: torch.device
    dtype: torch.dtype


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    defaults = SamplerSettings()
    job = add("run", help="lip-sync a video to a recording", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    job.set_defaults(command=run)
    job.add_argument("video", type=Path, help="the video whose lips will move")
    job.add_argument("audio", type=Path, help="the speech: any sound file, or a video with sound")
    job.add_argument("-o", "--output", type=Path, required=True, help="the finished video, an mp4")
    job.add_argument(
        "--version", choices=sorted(MODELS), help="model version; otherwise 1.6 where the card holds it, else 1.5"
    )
    faces.add_models_flag(job)
    job.add_argument("--steps", type=int, default=defaults.steps, help="denoising steps")
    job.add_argument("--guidance", type=float, default=defaults.guidance, help="strength of the audio, 1 to 3")
    job.add_argument("--seed", type=int, default=defaults.seed, help="seed of the noise")
    job.add_argument(
        "--step-cache", type=int, default=defaults.step_cache, help="run the whole UNet every so many steps; 1 is off"
    )
    _add_hearing(job)
    job.add_argument(
        "--fps",
        choices=get_args(RateChoice),
        default="25",
        help="frames per second: 25, what the model was trained on; auto: the video's own from 23 to 31, else 25",
    )
    job.add_argument(
        "--length",
        choices=get_args(Length),
        default="ping-pong",
        help="of the output: as long as the audio, with a shorter video played back and forth, over again (loop) or "
        "resting on its last frame (hold); as long as the video; or as the shorter of the two",
    )
    job.add_argument(
        "--crf",
        type=int,
        choices=range(52),
        metavar="0-51",
        default=18,
        help="h264 quality; lower is better, 0 lossless",
    )
    faces.add_flags(job)
    job.add_argument("--synthetic", action="store_true", help="tiny untrained weights, to try the machinery")


def _add_hearing(job: argparse.ArgumentParser) -> None:
    defaults = HearingSettings()
    job.add_argument("--vocals", type=Path, help="the voice alone: it drives the lips, and AUDIO is heard")
    job.add_argument(
        "--silence",
        choices=get_args(Silence),
        default=defaults.silence,
        help="frames in which nobody speaks: as the network has it, the source's own, or a closed mouth",
    )
    job.add_argument(
        "--threshold-db",
        type=float,
        default=defaults.threshold_db,
        help="how far sound must stand out of its background to count as speech, 1 to 20",
    )
    job.add_argument(
        "--hang-ms",
        type=int,
        default=round(1000 * defaults.hang_seconds),
        help="how long speech is taken to go on after it has faded",
    )
    job.add_argument("--offset-ms", type=int, default=0, help="lips later than the sound; negative: earlier")
    job.add_argument(
        "--segments",
        choices=get_args(Segments),
        default=defaults.segments,
        help="how the sound is cut for Whisper; upstream compares with the official program",
    )


def run(options: argparse.Namespace) -> None:
    """Give a video new speech and write it."""
    from .. import pipeline
    from ..media import VideoFile, read_sound
    from ..timeline import lay_out, output_rate

    settings = SamplerSettings(options.seed, options.steps, options.guidance, options.step_cache)
    _check_output(options.output, [options.video, options.audio])
    source, sound = VideoFile(options.video), read_sound(options.audio)
    models = _synthetic_models() if options.synthetic else _load_models(options)
    track = faces.find_track(source, options)
    features = _listen(sound, models.encoder, options)
    timeline = lay_out(source, sound.duration_seconds, output_rate(source.rate, options.fps), options.length)
    samples = pipeline.sample(
        models.unet, models.codec, track, features, timeline, settings, _noise(settings.seed, models), models.dtype
    )
    total = len(pipeline.plan(track, features, timeline)) * settings.steps
    lips = pipeline.collect(shown(samples, "lips", total), track, timeline, sound, models.codec)
    _write(lips, options)


def _write(lips: LipTrack, options: argparse.Namespace) -> None:
    from .. import pipeline
    from ..writer import VideoWriter

    source = lips.track.source
    with VideoWriter(
        options.output,
        rate=lips.timeline.rate,
        height=source.height,
        width=source.width,
        crf=options.crf,
        waveform=lips.waveform,
    ) as writer:
        for made in shown(pipeline.composite(lips), "video", lips.timeline.frame_count):
            writer.write(made.frame)
    for remark in source.remarks():
        sys.stderr.write(f"note: {remark}\n")
    missed = int((lips.slots < 0).sum())
    sys.stdout.write(f"{options.output}: {lips.timeline.frame_count} frames, {missed} of them as in the source\n")


def _listen(audio: Waveform, encoder: WhisperEncoder, options: argparse.Namespace) -> AudioFeatures:
    from .. import hearing, sound
    from ..media import read_sound

    settings = HearingSettings(options.silence, options.threshold_db, options.hang_ms / 1000, options.segments)
    vocals = None if options.vocals is None else read_sound(options.vocals)
    heard = sound.hear(audio, vocals, Fraction(options.offset_ms, 1000))
    listened = shown(hearing.listen(heard, encoder, settings), "audio", hearing.steps(heard, settings))
    return hearing.remember(listened, heard, audio, settings)[0]


def _load_models(options: argparse.Namespace) -> Models:
    import torch

    from .. import checkpoint

    device = chosen_device()
    prefer = hub.preference(card_bytes(device))
    files = followed(hub.locate(hub.folders_in(options.models), options.version, prefer=prefer))
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    unet = checkpoint.load_unet(files.unet, dtype=dtype).to(device)
    encoder = checkpoint.load_whisper(files.whisper).to(device)
    codec = checkpoint.load_vae(files.vae).to(device, dtype)
    return Models(unet, encoder, codec, files.spec.resolution, device, dtype)


def _synthetic_models() -> Models:
    import torch

    from .. import synthetic

    sys.stderr.write(SYNTHETIC_WARNING + "\n")
    resolution = MODELS["1.5"].resolution
    device = torch.device("cpu")
    return Models(synthetic.unet(), synthetic.whisper(), synthetic.vae(), resolution, device, torch.float32)


def _noise(seed: int, models: Models) -> torch.Tensor:
    from ..sampling import draw_noise

    return draw_noise(seed, models.resolution).to(models.device)


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    if output.suffix.lower() != ".mp4":
        raise UsageError(f"the output is an mp4: give -o a name that ends in .mp4, not {output.name!r}")
    if not output.resolve().parent.is_dir():
        raise UsageError(f"the folder {output.resolve().parent} does not exist: make it, or choose another output")
    if output.exists() and any(given.exists() and output.samefile(given) for given in inputs):
        raise UsageError(f"{output} is one of the inputs: choose another output")
