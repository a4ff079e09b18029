"""Compare this implementation with recorded results of the official code.

Each .npz holds `meta`, a JSON list of cases, and the arrays of each case under its name. A file without `meta` holds a
mask. Inputs and weights are rebuilt from the seeds, keys and shapes that a case names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentsync.audio import features
from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import SAMPLE_RATE, Waveform
from latentsync.compositing import box_blend
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.alignment import affine_matrices, crop, keep_mask
from latentsync.faces.face_track import FaceTrack
from latentsync.models.protocols import VAE
from latentsync.models.unet import UNet
from latentsync.oom import BatchLimit
from latentsync.sampling import conditioning
from latentsync.sampling import denoise as denoising
from latentsync.sampling import sampler as product
from latentsync.sampling.settings import SamplerSettings
from latentsync.scoring import wav2lip_mel
from latentsync.scoring.mfcc import mfcc
from latentsync.scoring.sync import num_windows, score_crops
from latentsync.video.timeline import Timeline, ping_pong
from tests.support import procedural
from tests.support.tiny_networks import (
    Clip,
    normal,
    speech_states,
    stable_syncnet,
    syncnet,
    unet,
    vae,
    worst,
)

OVERSHOOT_FRAMES = 2

Case = dict[str, Any]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """One error of one case, and its tolerance."""

    what: str
    value: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.value <= self.limit  # false for NaN

    def __str__(self) -> str:
        return f"{self.what} {self.value:.3g} (<= {self.limit:g})"


def check(path: Path) -> Iterator[tuple[str, list[Measured]]]:
    """The errors of each case of a file. Cases of a kind without a check are left out, see `skipped`."""
    with np.load(path) as arrays:
        if "meta" not in arrays:
            yield "keep", mask(arrays)
            return
        for case in json.loads(str(arrays["meta"])):
            if case["kind"] in KINDS:
                yield case["name"], KINDS[case["kind"]](case, arrays)


def skipped(path: Path) -> list[tuple[str, str]]:
    """Name and kind of each case of a file that no check compares."""
    with np.load(path) as arrays:
        cases = json.loads(str(arrays["meta"])) if "meta" in arrays else []
    return [(case["name"], case["kind"]) for case in cases if case["kind"] not in KINDS]


def mask(arrays: Arrays) -> list[Measured]:
    keep = arrays["keep"]
    return [Measured("max", float(np.abs(keep_mask(len(keep)) - keep).max()), 1e-6)]


def forward(case: Case, arrays: Arrays) -> list[Measured]:
    """1e-4: float32 sums in another order, over a few hundred layers."""
    return [Measured("max", worst(predicted_noise(case, unet(case["layout"])), arrays[case["name"]]), 1e-4)]


@torch.no_grad()
def predicted_noise(
    case: Case, network: UNet, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """The result of one pass of a network on a device, as float32 on the CPU."""
    batch, frames, size = case["batch"], case["frames"], case["size"]
    x = normal(case["x_seed"], batch, 13, frames, size, size).to(device, dtype)
    audio = normal(case["audio_seed"], batch, frames, 50, 384).to(device, dtype)
    noise, _ = network(x, case["t"], network.precompute_audio_kv(audio))
    return noise.float().cpu()


def denoise(case: Case, arrays: Arrays) -> list[Measured]:
    """1e-3, relative: the steps amplify the differences of one pass."""
    return [Measured("relative", relative(sampled_latents(case, unet(case["layout"])), arrays[case["name"]]), 1e-3)]


def sampled_latents(
    case: Case, network: UNet, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """The latents after the last step of a network on a device, as float32 on the CPU."""
    frames, size = case["frames"], case["size"]
    settings = SamplerSettings(
        num_inference_steps=case["steps"], guidance_scale=case["guidance"], cache_interval=case["cache_interval"]
    )
    *_, latents = denoising.denoise(
        network,
        normal(case["noise_seed"], 1, 4, 1, size, size).to(device),
        normal(case["cond_seed"], 1, 9, frames, size, size).to(device, dtype),
        normal(case["audio_seed"], 1, frames, 50, 384).to(device, dtype),
        settings,
        BatchLimit(2, "the UNet"),
    )
    return latents.float().cpu()


def sound(case: Case, arrays: Arrays) -> list[Measured]:
    """2e-3: the recorded results used another attention kernel, on values of magnitude ten."""
    heard = features.frame_windows(speech_states(case["seconds"]), case["index"], Fraction(case["fps"]))
    return [Measured("max", worst(heard, arrays[case["name"]]), 2e-3)]


def alignment(case: Case, arrays: Arrays) -> list[Measured]:
    """1e-3 px for matrices. Pixels: OpenCV's rounding differs between versions and from torch's."""
    name, resolution = case["name"], case["resolution"]
    clip = Clip(case)
    matrices = affine_matrices(clip.points(case["frames"]), resolution)
    crops = np.stack([crop(clip.frame(i), matrices[i], resolution) for i in case["keep"]])
    last = case["pasted_frame"]
    pasted = box_blend.paste_box(clip.frame(last), procedural_face(resolution), matrices[last])
    return [
        Measured("matrices", float(np.abs(matrices - arrays[f"{name}_matrices"]).max()), 1e-3),
        *pixels("crops", crops, arrays[f"{name}_crops"], mean=0.7, levels=3, share=0.999),
        *pixels("pasted", pasted, arrays[f"{name}_pasted"], mean=0.7, levels=3, share=0.999),
    ]


def pipeline(case: Case, arrays: Arrays) -> list[Measured]:
    """All stages at once: their pixel errors add up, mostly those of resizing."""
    noise = torch.from_numpy(arrays[f"{case['name']}_noise"])
    drawn = conditioning.sample_noise(case["seed"], case["resolution"])
    made = list(clip_frames(case))
    output = np.stack([made[i] for i in case["keep"]])
    return [
        Measured("noise", worst(drawn, noise.numpy()), 1e-6),
        *pixels("frames", output, arrays[case["name"]], mean=1.0, levels=4, share=0.99),
    ]


def sync(case: Case, arrays: Arrays) -> list[Measured]:
    """Features 1e-4, relative: float32 sums in another order. Distances 0.05: they are sums over 1024 features."""
    name, frames, network = case["name"], case["frames"], syncnet(case["salt"])
    crops = [procedural.frame(case["first_frame"] + i, 224, 224)[..., ::-1] for i in range(frames)]
    skipped_samples = round(case["skip_seconds"] * SAMPLE_RATE)
    samples = torch.from_numpy(procedural.speech(frames / 25 + case["skip_seconds"])[skipped_samples:])
    columns = torch.from_numpy(mfcc(samples.numpy() * 32768))
    count = num_windows(frames, len(samples))
    score = score_crops(crops[: count + 4], count, samples, network)
    with torch.no_grad():
        video = network.video(torch.from_numpy(np.stack(crops[:8])).permute(0, 3, 1, 2).float())
        audio = network.audio(torch.stack([columns[:, 4 * i : 4 * i + 20] for i in range(4)]))
    return [
        Measured("mfcc", worst(columns, arrays[f"{name}_mfcc"]), 1e-3),
        Measured("video", relative(video, arrays[f"{name}_video"]), 1e-4),
        Measured("audio", relative(audio, arrays[f"{name}_audio"]), 1e-4),
        Measured("distances", float(np.abs(score.distances - arrays[f"{name}_distances"]).max()), 0.05),
        Measured("offset", abs(score.offset_frames - case["offset"]), 0),
        Measured("distance", abs(score.distance - case["distance"]), 0.05),
        Measured("confidence", abs(score.confidence - case["confidence"]), 0.05),
    ]


def mel_of_wav2lip(case: Case, arrays: Arrays) -> list[Measured]:
    """2e-3: a float32 STFT, on values up to 4."""
    mel = wav2lip_mel.log_mel(procedural.speech(case["seconds"]))
    return [Measured("max", float(np.abs(mel - arrays[f"{case['name']}_mel"]).max()), 2e-3)]


def stable_sync(case: Case, arrays: Arrays) -> list[Measured]:
    """1e-5: features of length 1."""
    name, network = case["name"], stable_syncnet(case["salt"])
    crops = (0.5 * normal(case["x_seed"], case["batch"], 48, 128, 256)).clamp(-1, 1)
    mel = (2 * normal(case["mel_seed"], case["batch"], 1, 80, 52)).clamp(-4, 4)
    with torch.no_grad():
        visual, audio = network.visual(crops), network.audio(mel[:, 0])
    return [
        Measured("cosine", worst((visual * audio).sum(dim=1), arrays[f"{name}_cosine"]), 1e-5),
        Measured("visual", worst(visual[:, :64], arrays[f"{name}_visual"]), 1e-5),
        Measured("audio", worst(audio[:, :64], arrays[f"{name}_audio"]), 1e-5),
    ]


KINDS: dict[str, Callable[[Case, Arrays], list[Measured]]] = {
    "forward": forward,
    "denoise": denoise,
    "audio": sound,
    "align": alignment,
    "pipeline": pipeline,
    "syncnet": sync,
    "wav2lip_mel": mel_of_wav2lip,
    "stable_syncnet": stable_sync,
}


def clip_frames(
    case: Case,
    network: UNet | None = None,
    codec: VAE | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[np.ndarray]:
    """The output frames of a pipeline case, in order, by the same pipeline that users run.

    Upstream's loop over the audio runs two frames past its end. We never make those, but the recorded frames of the
    last window were sampled together with them, so here the timeline has them too.
    """
    clip = Clip(case)
    features = AudioFeatures(speech_states(case["seconds"]), Waveform(torch.zeros(1, 1), SAMPLE_RATE))
    count = len(features.hidden_states) // 2 + OVERSHOOT_FRAMES
    timeline = Timeline(clip.rate, tuple(ping_pong(i, clip.frame_count) for i in range(count)))
    track = FaceTrack(clip, clip.points(clip.frame_count))
    settings = SamplerSettings(
        seed=case["seed"],
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        cache_interval=case["cache_interval"],
    )
    resolution = case["resolution"]
    network, codec = network or unet("unet_tiny"), codec or vae()
    steps = product.sample_windows(
        network, codec, track, features, timeline, settings, resolution, device=device, dtype=dtype
    )
    lips = product.build_lip_track(steps, track, timeline, features.waveform, codec)
    return (made.frame for made in composite([lips], BlendSettings("full crop", color_match=False)))


def relative(given: Tensor, expected: np.ndarray) -> float:
    return worst(given, expected) / float(np.abs(expected).max())


def procedural_face(resolution: int) -> Tensor:
    """float32 (3, R, R) in [-0.8, 0.8]."""
    y, x = torch.meshgrid(*[torch.arange(resolution) / resolution] * 2, indexing="ij")
    return 0.8 * torch.stack([torch.sin(6 * x), torch.cos(5 * y), torch.sin(4 * (x + y))])


def pixels(
    what: str, given: np.ndarray, expected: np.ndarray, *, mean: float, levels: int, share: float
) -> list[Measured]:
    """The mean error in levels of 255, and the share of values that are further off than `levels`."""
    error = np.abs(given.astype(np.int16) - expected)
    return [
        Measured(f"{what} mean", float(error.mean()), mean),
        Measured(f"{what} beyond {levels}", float((error > levels).mean()), 1 - share),
    ]
