"""The change of the mouth by each speed setting, against 20 DDIM steps without DeepCache, and its number of passes.

The networks are tiny and untrained, and the crops are 128 pixels wide, so that it takes minutes. The number of passes
is that of any network. The PSNR is that of an untrained one: it shows the distance of two settings, and not how good
either looks.

Usage: python -m benchmarks.choices VIDEO SOUND --model face_landmarker.task [--frames 48]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.faces import track_largest_face
from benchmarks.roofline import passes_of
from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.features import AudioFeatures, AudioSettings, collect_features, extract_features
from latentsync.audio.reader import read_audio
from latentsync.faces.alignment import keep_mask
from latentsync.faces.face_track import FaceTrack
from latentsync.models.constants import LATENT_SCALE
from latentsync.sampling import sampler
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import Timeline, build_timeline
from latentsync.video.video_file import VideoFile
from latentsync.weights import random_init

RESOLUTION = 128  # pixels, half of what 1.5 samples
EXACT = SamplerSettings(num_inference_steps=20, cache_interval=1)

CHOICES = {
    **{f"deepcache_interval {n}": SamplerSettings(cache_interval=n) for n in (2, 3, 4, 5)},
    **{
        f"{scheduler}, {steps} steps": SamplerSettings(num_inference_steps=steps, cache_interval=1, scheduler=scheduler)
        for scheduler in ("ddim", "dpmpp_2m", "euler", "uni_pc")
        for steps in (20, 10, 6)
        if (scheduler, steps) != (EXACT.scheduler, EXACT.num_inference_steps)
    },
    "cfg 1": SamplerSettings(cache_interval=1, guidance_scale=1.0),
    "cfg_end_percent 0.5": SamplerSettings(cache_interval=1, guidance_end=0.5),
    "another seed": SamplerSettings(seed=EXACT.seed + 1, cache_interval=1),
}
"""The settings to compare. Another seed shows the distance of two equally valid mouths."""


class Clip(NamedTuple):
    """What is sampled."""

    track: FaceTrack
    features: AudioFeatures
    timeline: Timeline


def main() -> None:
    options = _options()
    clip = _clip(options)
    sys.stdout.write(f"{options.video.name}, {clip.timeline.frame_count} frames, tiny untrained networks\n\n")
    sys.stdout.write(
        "| setting | full passes per window | shallow passes per window | PSNR of the mouth |\n|---|---|---|---|\n"
    )
    exact = _mouths(clip, EXACT)
    sys.stdout.write(f"| 20 steps of ddim | {_counts(EXACT)} | |\n")
    for name, settings in CHOICES.items():
        sys.stdout.write(f"| {name} | {_counts(settings)} | {_psnr(_mouths(clip, settings), exact):.1f} dB |\n")
        sys.stdout.flush()


def _counts(settings: SamplerSettings) -> str:
    """The full and the shallow passes of a window. A pass with guidance counts as two."""
    passes = passes_of(settings)
    return " | ".join(str(2 * passes[True, shallow] + passes[False, shallow]) for shallow in (False, True))


def _clip(options: argparse.Namespace) -> Clip:
    seconds = options.frames / VideoFile(options.video).rate
    source, sound = VideoFile(options.video, duration_seconds=seconds), read_audio(options.sound).pad_or_trim(seconds)
    driving_audio, settings = prepare_driving_audio(sound), AudioSettings()
    steps = extract_features(driving_audio, random_init.whisper(), settings)
    features, _ = collect_features(steps, driving_audio, settings)
    timeline = build_timeline(source, sound.duration_seconds, source.rate)
    return Clip(track_largest_face(source, options.model), features, timeline)


def _mouths(clip: Clip, settings: SamplerSettings) -> Tensor:
    """The regenerated part of every crop, (frames, 3, pixels) in [-1, 1]."""
    codec = random_init.vae()
    samples = sampler.sample_windows(random_init.unet(), codec, *clip, settings, RESOLUTION)
    lips = sampler.build_lip_track(samples, clip.track, clip.timeline, clip.features.waveform, codec)
    mouth = torch.from_numpy(keep_mask(RESOLUTION)) < 1
    return codec.decode(lips.latents.float() / LATENT_SCALE).clamp(-1, 1)[..., mouth]


def _psnr(made: Tensor, exact: Tensor) -> float:
    """Decibels, of values that reach from -1 to 1."""
    error = torch.mean((made - exact).double() ** 2)
    return float(10 * torch.log10(4 / error))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("sound", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--frames", type=int, default=48)
    return parser.parse_args()


if __name__ == "__main__":
    main()
