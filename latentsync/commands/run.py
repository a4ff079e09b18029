"""`run`: give a video new speech."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, get_args

from .. import hub
from ..spec import MODELS
from ..timeline import Length, RateChoice
from ..types import HearingSettings, SamplerSettings, Scheduler, Segments, Silence
from . import faces, models_folder, output
from .device import card_bytes, chosen_device
from .progress import followed, shown

if TYPE_CHECKING:
    import torch

    from ..models.whisper import WhisperEncoder
    from ..record import Item, RunRecord
    from ..sampling import Denoiser
    from ..sound import Heard
    from ..types import AudioFeatures, Codec, LipTrack, Waveform

SYNTHETIC_WARNING = (
    "warning: --synthetic uses tiny untrained weights: everything runs, but the mouth will be noise, not speech."
)


@dataclass(frozen=True)
class Models:
    """The networks of a run, on their device. `resolution` is the side of the crop in pixels, `dtype` the UNet's;
    `version` and `files` are for the record."""

    unet: Denoiser
    encoder: WhisperEncoder
    codec: Codec
    resolution: int
    device: torch.device
    dtype: torch.dtype
    version: str
    files: tuple[Path, ...]


def add_parser(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the command and its flags."""
    defaults = SamplerSettings()
    job = add("run", help="lip-sync a video to a recording")
    job.set_defaults(command=run)
    job.add_argument("video", type=Path, help="the video whose lips will move")
    job.add_argument("audio", type=Path, help="the speech: any sound file, or a video with sound")
    job.add_argument("-o", "--output", type=Path, required=True, help="the finished video: .mp4, .webm, .mov or .mkv")
    job.add_argument(
        "--version", choices=sorted(MODELS), help="model version; otherwise 1.6 where the card holds it, else 1.5"
    )
    models_folder.add_flag(job)
    job.add_argument("--steps", type=int, default=defaults.steps, help="denoising steps")
    job.add_argument("--guidance", type=float, default=defaults.guidance, help="strength of the audio, 1 to 3")
    job.add_argument("--seed", type=int, default=defaults.seed, help="seed of the noise")
    job.add_argument(
        "--step-cache", type=int, default=defaults.step_cache, help="run the whole UNet every so many steps; 1 is off"
    )
    job.add_argument(
        "--scheduler",
        choices=get_args(Scheduler),
        default=defaults.scheduler,
        help="how the noise is taken away: ddim is the authors' own; dpm++ 2m and unipc are made for fewer steps",
    )
    job.add_argument(
        "--overlap", type=int, default=defaults.overlap, help="frames that a window of 16 shares with the next, 0 to 12"
    )
    for end in ("start", "end"):
        job.add_argument(
            f"--guidance-{end}",
            type=float,
            default=getattr(defaults, f"guidance_{end}"),
            help=f"share of the steps at which guidance {end}s, 0 to 1; a step without it takes half the time",
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
    output.add_flags(job)
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
    """Give a video new speech and write it; with --record, write down how it went, however it ends."""
    from ..claim import claimed
    from ..record import Recorder, RunRecord

    output.check(options, [options.video, options.audio, options.vocals, options.landmarks, options.reference_face])
    settings = SamplerSettings(
        options.seed,
        options.steps,
        options.guidance,
        options.step_cache,
        options.scheduler,
        options.overlap,
        options.guidance_start,
        options.guidance_end,
    )
    record = RunRecord(consent=options.consent, seed=options.seed)
    with claimed([options.output]), Recorder(options.output, record) if options.record else nullcontext():
        _write(_sampled(settings, options), options, record)


def _sampled(settings: SamplerSettings, options: argparse.Namespace) -> LipTrack:
    from .. import pipeline
    from ..media import VideoFile, read_sound
    from ..timeline import lay_out, output_rate
    from ..types import Origin
    from ..writer import check_sound

    source, sound = VideoFile(options.video), read_sound(options.audio)
    check_sound(sound, output.form_of(options).sound)
    hearing, heard = _hearing(options), _heard(sound, options)
    models = _synthetic_models() if options.synthetic else _load_models(options)
    track = faces.find_track(source, options)
    features = _listen(heard, sound, models.encoder, hearing)
    timeline = lay_out(source, sound.duration_seconds, output_rate(source.rate, options.fps), options.length)
    began = monotonic()
    samples = pipeline.sample(
        models.unet, models.codec, track, features, timeline, settings, _noise(settings.seed, models), models.dtype
    )
    total = len(pipeline.plan(track, features, timeline, settings.overlap)) * settings.steps
    lips = pipeline.collect(shown(samples, "lips", total), track, timeline, sound, models.codec)
    asked = {"fps": options.fps, "length": options.length}
    origin = Origin.of(models.version, models.files, track, features, settings, asked, monotonic() - began)
    return replace(lips, origin=origin)


def _write(lips: LipTrack, options: argparse.Namespace, record: RunRecord) -> None:
    from ..composite import composite
    from ..record import tags

    blend, source = output.blend_settings(options), lips.track.source
    record.describe([lips], blend)
    if options.record:
        record.identify([lips], _given(options))
    record.settings |= {"format": output.form_of(options).name, "crf": options.crf}
    with output.writer(lips, options, tags(record)) as writer:
        for made in shown(composite([lips], blend), "video", lips.timeline.frame_count):
            writer.write(made.frame)
    for remark in source.remarks():
        sys.stderr.write(f"note: {remark}\n")
        record.notes.append(remark)
    spoken = int((lips.slots >= 0).sum())
    sys.stdout.write(f"{options.output}: {lips.timeline.frame_count} frames, {spoken} of them with new lips\n")


def _given(options: argparse.Namespace) -> list[Item]:
    """The files besides the video, as the record names them."""
    from ..record import of_file

    given = {
        "audio": options.audio,
        "vocals": options.vocals,
        "landmarks": options.landmarks,
        "reference face": options.reference_face,
    }
    return [of_file(role, path) for role, path in given.items() if path is not None]


def _hearing(options: argparse.Namespace) -> HearingSettings:
    return HearingSettings(options.silence, options.threshold_db, options.hang_ms / 1000, options.segments)


def _heard(audio: Waveform, options: argparse.Namespace) -> Heard:
    """What drives the lips; a recording that cannot is refused here, before the long work begins."""
    from ..media import read_sound
    from ..sound import hear

    vocals = None if options.vocals is None else read_sound(options.vocals)
    return hear(audio, vocals, Fraction(options.offset_ms, 1000))


def _listen(heard: Heard, audio: Waveform, encoder: WhisperEncoder, settings: HearingSettings) -> AudioFeatures:
    from .. import hearing

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
    read = (files.unet, files.whisper, files.vae)
    return Models(unet, encoder, codec, files.spec.resolution, device, dtype, files.spec.version, read)


def _synthetic_models() -> Models:
    import torch

    from .. import synthetic

    sys.stderr.write(SYNTHETIC_WARNING + "\n")
    resolution = MODELS["1.5"].resolution
    device = torch.device("cpu")
    return Models(
        synthetic.unet(), synthetic.whisper(), synthetic.vae(), resolution, device, torch.float32, "synthetic", ()
    )


def _noise(seed: int, models: Models) -> torch.Tensor:
    from ..sampling import draw_noise

    return draw_noise(seed, models.resolution).to(models.device)
