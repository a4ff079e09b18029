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
from ..audio.features import AudioSettings, Segments, Silence
from ..sampling.schedulers import SCHEDULERS
from ..sampling.settings import SamplerSettings
from ..video.timeline import FpsMode, LengthMode
from ..weights.catalog import MODELS
from . import faces, options, output_options
from .device import card_bytes, chosen_device
from .progress import progress_bar, run_with_progress

if TYPE_CHECKING:
    import torch

    from ..audio.features import AudioFeatures, DrivingAudio
    from ..audio.waveform import Waveform
    from ..models.protocols import VAE, Denoiser
    from ..models.whisper import WhisperEncoder
    from ..output.run_record import FileDigest, RunRecord
    from ..sampling.lip_track import LipTrack


SYNTHETIC_WARNING = (
    "warning: --synthetic uses tiny untrained weights: everything runs, but the mouth will be noise, not speech."
)


@dataclass(frozen=True)
class Models:
    """The networks of a run, on their device. `resolution` is the side of the crop in pixels, `dtype` the UNet's;
    `version` and `files` are for the record."""

    unet: Denoiser
    encoder: WhisperEncoder
    vae: VAE
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
    options.add_flag(job)
    job.add_argument("--steps", type=int, default=defaults.num_inference_steps, help="denoising steps")
    job.add_argument("--guidance", type=float, default=defaults.guidance_scale, help="strength of the audio, 1 to 3")
    job.add_argument("--seed", type=int, default=defaults.seed, help="seed of the noise")
    job.add_argument(
        "--step-cache",
        type=int,
        default=defaults.cache_interval,
        help="run the whole UNet every so many steps; 1 is off",
    )
    job.add_argument(
        "--scheduler",
        choices=list(SCHEDULERS),
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
        choices=get_args(FpsMode),
        default="25",
        help="frames per second: 25, what the model was trained on; auto: the video's own from 23 to 31, else 25",
    )
    job.add_argument(
        "--length",
        choices=get_args(LengthMode),
        default="ping-pong",
        help="of the output: as long as the audio, with a shorter video played back and forth, over again (loop) or "
        "resting on its last frame (hold); as long as the video; or as the shorter of the two",
    )
    output_options.add_flags(job)
    faces.add_flags(job)
    job.add_argument("--synthetic", action="store_true", help="tiny untrained weights, to try the machinery")


def _add_hearing(job: argparse.ArgumentParser) -> None:
    defaults = AudioSettings()
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
        default=round(1000 * defaults.hangover_s),
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
    from ..output.run_record import Recorder, RunRecord

    output_options.check(
        options, [options.video, options.audio, options.vocals, options.landmarks, options.reference_face]
    )
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
    from ..audio.reader import read_audio
    from ..output.video_writer import check_audio_codec
    from ..sampling import sampler
    from ..sampling.lip_track import Provenance
    from ..video.timeline import build_timeline, output_rate
    from ..video.video_file import VideoFile

    source, sound = VideoFile(options.video), read_audio(options.audio)
    check_audio_codec(sound, output_options.form_of(options).sound)
    hearing, heard = _hearing(options), _heard(sound, options)
    models = _synthetic_models() if options.synthetic else _load_models(options)
    track = faces.find_track(source, options)
    features = _listen(heard, sound, models.encoder, hearing)
    timeline = build_timeline(source, sound.duration_seconds, output_rate(source.rate, options.fps), options.length)
    began = monotonic()
    samples = sampler.sample_windows(
        models.unet,
        models.vae,
        track,
        features,
        timeline,
        settings,
        models.resolution,
        device=models.device,
        dtype=models.dtype,
    )
    total = sampler.num_sampling_steps(track, features, timeline, settings)
    lips = sampler.build_lip_track(progress_bar(samples, "lips", total), track, timeline, sound, models.vae)
    asked = {"fps": options.fps, "length": options.length}
    seconds = monotonic() - began
    origin = Provenance.from_stages(models.version, models.files, track, features, settings, asked, seconds)
    return replace(lips, provenance=origin)


def _write(lips: LipTrack, options: argparse.Namespace, record: RunRecord) -> None:
    from ..compositing.compositor import composite
    from ..output.run_record import tags

    blend, source = output_options.blend_settings(options), lips.face_track.source
    record.describe([lips], blend)
    if options.record:
        record.identify([lips], _given(options))
    record.settings |= {"format": output_options.form_of(options).name, "crf": options.crf}
    with output_options.writer(lips, options, tags(record)) as writer:
        for made in progress_bar(composite([lips], blend), "video", lips.timeline.frame_count):
            writer.write(made.frame)
    for remark in source.warnings():
        sys.stderr.write(f"note: {remark}\n")
        record.notes.append(remark)
    spoken = int((lips.latent_index >= 0).sum())
    sys.stdout.write(f"{options.output}: {lips.timeline.frame_count} frames, {spoken} of them with new lips\n")


def _given(options: argparse.Namespace) -> list[FileDigest]:
    """The files besides the video, as the record names them."""
    from ..output.run_record import digest_file

    given = {
        "audio": options.audio,
        "vocals": options.vocals,
        "landmarks": options.landmarks,
        "reference face": options.reference_face,
    }
    return [digest_file(role, path) for role, path in given.items() if path is not None]


def _hearing(options: argparse.Namespace) -> AudioSettings:
    return AudioSettings(options.silence, options.threshold_db, options.hang_ms / 1000, options.segments)


def _heard(audio: Waveform, options: argparse.Namespace) -> DrivingAudio:
    """What drives the lips; a recording that cannot is refused here, before the long work begins."""
    from ..audio.features import prepare_driving_audio
    from ..audio.reader import read_audio

    vocals = None if options.vocals is None else read_audio(options.vocals)
    return prepare_driving_audio(audio, vocals, Fraction(options.offset_ms, 1000))


def _listen(heard: DrivingAudio, audio: Waveform, encoder: WhisperEncoder, settings: AudioSettings) -> AudioFeatures:
    from ..audio import features

    listened = progress_bar(
        features.extract_features(heard, encoder, settings), "audio", features.num_feature_steps(heard, settings)
    )
    return features.collect_features(listened, heard, audio, settings)[0]


def _load_models(options: argparse.Namespace) -> Models:
    import torch

    from .. import checkpoint

    device = chosen_device()
    prefer = hub.preference(card_bytes(device))
    files = run_with_progress(hub.locate(hub.folders_in(options.models), options.version, prefer=prefer))
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
