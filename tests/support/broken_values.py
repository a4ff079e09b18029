"""Attacks with numbers, names and images that are out of range."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentsync.audio.features import AudioSettings
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.frame_source import ImageBatch
from latentsync.video.timeline import Timeline
from tests.support.broken_media import folder, loop
from tests.support.scene import Attack, Misuse, Scene

NAN, INF = float("nan"), float("inf")


def flag(name: str, value: object) -> Callable[[Scene], list[str]]:
    return lambda scene: scene.run(f"{name}={value}")


def onto(path: Callable[[Scene], Path], *more: str) -> Callable[[Scene], list[str]]:
    return lambda scene: scene.run(*more, output=path(scene))


def inside_a_file(scene: Scene) -> Path:
    return scene.written("file", "words") / "out.mp4"


def mine(scene: Scene) -> Path:
    return scene.written("mine.mp4", scene.good.video.read_bytes())


VALUES = [
    Attack("0 steps", flag("--steps", 0), '"steps" cannot be 0', 2),
    Attack("-1 steps", flag("--steps", -1), '"steps" cannot be -1', 2),
    Attack("a thousand million steps", flag("--steps", 10**9), '"steps" cannot be 1000000000', 2),
    Attack("guidance that is no number", flag("--cfg", NAN), '"cfg" cannot be nan', 2),
    Attack("endless guidance", flag("--cfg", INF), '"cfg" cannot be inf', 2),
    Attack("guidance that starts at no number", flag("--cfg-start-percent", NAN), '"cfg_start_percent" is nan', 2),
    Attack("a negative seed", flag("--seed", -1), '"seed" cannot be', 2),
    Attack("a seed of 2^64", flag("--seed", 2**64), '"seed" cannot be', 2),
    Attack("a seed of 4,000 digits", flag("--seed", "9" * 4000), '"seed" cannot be', 2),
    Attack("an overlap of a whole window", flag("--overlap", 16), '"overlap" cannot be 16', 2),
    Attack("a step cache of 0", flag("--deepcache-interval", 0), '"deepcache_interval" cannot be 0', 2),
    Attack("a feather that is no number", flag("--mask-feather", NAN), '"mask_feather" cannot be nan', 2),
    Attack("a mask grown endlessly", flag("--mask-expand", INF), '"mask_expand" cannot be inf', 2),
    Attack("a threshold that is no number", flag("--threshold-db", NAN), '"threshold_db" cannot be nan', 2),
    Attack("a negative hold time", flag("--hold-ms", -1), '"hold_ms" cannot be', 2),
    Attack("an offset of 10^18 ms", flag("--offset-ms", 10**18), 'Set "offset_ms" closer to 0'),
    Attack("a gap of -1 frames", flag("--max-gap", -1), '"max_gap" cannot be -1', 2),
    Attack("a yaw that is no number", flag("--max-yaw", NAN), '"max_yaw" cannot be nan', 2),
    Attack("face 0", flag("--face-index", 0), '"--face-index" cannot be 0', 2),
    Attack("face 10^30", flag("--face-index", 10**30), "no person with this number"),
]

DETECTOR = [
    Attack("a confidence that is no number", flag("--min-confidence", NAN), "min_confidence.*nan", 2),
    Attack("a confidence of 2", flag("--min-confidence", 2), "min_confidence.*2", 2),
]

NAMES = [
    Attack("an output in a folder that is not there", onto(lambda s: s.folder / "no" / "out.mp4"), "does not exist", 2),
    Attack("an output inside a file", onto(inside_a_file), "does not exist", 2),
    Attack("an output that is a folder", onto(lambda s: folder(s, "out.mp4")), "out.mp4.* is a folder", 2),
    Attack("an output behind a link to itself", onto(lambda s: loop(s, "loop") / "out.mp4"), "does not exist", 2),
    Attack(
        "an output of 300 letters",
        onto(lambda s: s.folder / f"{'x' * 300}.mp4"),
        "File name too long",
    ),
    Attack(
        "an output in a folder that takes no files",
        onto(lambda _: Path("/proc/out.mp4")),
        "/proc/out.mp4 cannot be written",
        needs="/proc",
    ),
    Attack("an output without a suffix", onto(lambda s: s.folder / "out"), "The name of the output file", 2),
    Attack(
        "an output with a suffix that is no video's",
        onto(lambda s: s.folder / "out.exe"),
        "The name of the output file",
        2,
    ),
    Attack("an output that is the source", lambda s: s.run(video=mine(s), output=mine(s)), "one of the inputs", 2),
    Attack(
        "a record that is a folder",
        lambda s: [folder(s, "out.json"), *s.run("--save-record")][1:],
        "out.json.* is a folder",
        2,
    ),
]


def batch(images: torch.Tensor, rate: Fraction = Fraction(25)) -> list[np.ndarray]:
    source = ImageBatch(images, rate)
    return list(source.read(range(source.frame_count)))


def pixels(value: float) -> torch.Tensor:
    images = torch.full((3, 8, 8, 3), 0.5)
    images[2, 4, 4, 1] = value
    return images


class Plain:
    """A VAE whose faces have one color."""

    def __init__(self, value: float) -> None:
        self._value = value

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 4, images.shape[2] // 8, images.shape[3] // 8)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.full((len(latents), 3, latents.shape[2] * 8, latents.shape[3] * 8), self._value)


def laid_in(protect: np.ndarray | None = None, color: float = 0.0) -> list[Any]:
    """Two frames of 96 x 96 with a face, composited under a protect mask."""
    source = ImageBatch(torch.full((2, 96, 96, 3), 0.5), Fraction(25))
    points = np.tile([[[38.0, 40.0], [58.0, 40.0], [48.0, 55.0]]], (2, 1, 1))
    lips = LipTrack(
        FaceTrack(source, points),
        Timeline(Fraction(25), (0, 1)),
        torch.zeros(2, 4, 32, 32, dtype=torch.float16),
        np.arange(2),
        Waveform(torch.zeros(1, 1280), 16_000),
        Plain(color),
    )
    return list(composite([lips], BlendSettings(), protect))


def mask(value: float) -> np.ndarray:
    protect = np.zeros((1, 96, 96), np.float32)
    protect[0, 60, 48] = value
    return protect


PICTURES = [
    Misuse(
        "pictures of whole numbers",
        lambda _: batch(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)),
        "not a batch of RGB or RGBA images",
    ),
    Misuse("a batch of no pictures", lambda _: batch(torch.zeros(0, 8, 8, 3)), "at least one frame"),
    Misuse("pictures of two colors", lambda _: batch(torch.zeros(1, 8, 8, 2)), "3 or 4"),
    Misuse("one picture without its batch", lambda _: batch(torch.zeros(8, 8, 3)), "not a batch of RGB or RGBA images"),
    Misuse("a pixel that is no number", lambda _: batch(pixels(NAN)), "Frame 2 .*NaN or infinite"),
    Misuse("an endless pixel", lambda _: batch(pixels(INF)), "Frame 2 .*NaN or infinite"),
    Misuse(
        "pictures at 0 frames per second",
        lambda _: batch(torch.zeros(1, 8, 8, 3), Fraction(0)),
        "a number above 0",
    ),
    Misuse(
        "pictures at -25 frames per second",
        lambda _: batch(torch.zeros(1, 8, 8, 3), Fraction(-25)),
        "a number above 0",
    ),
    Misuse("a mask with a value that is no number", lambda _: laid_in(mask(NAN)), "protect_mask.*NaN or infinite"),
    Misuse("an endless mask", lambda _: laid_in(mask(INF)), "protect_mask.*NaN or infinite"),
    Misuse("a mask of another size", lambda _: laid_in(np.zeros((1, 48, 48), np.float32)), '"protect_mask" is 48 x 48'),
    Misuse("a mask of no pictures", lambda _: laid_in(np.zeros((0, 96, 96), np.float32)), '"protect_mask" has 0 masks'),
    Misuse(
        "a mask of colors",
        lambda _: laid_in(np.zeros((1, 96, 96, 3), np.float32)),
        '"protect_mask" is not a batch of masks',
    ),
    Misuse("NaN in the faces of the VAE", lambda _: laid_in(color=NAN), "contains NaN or infinite"),
    Misuse("sound of no channels", lambda _: Waveform(torch.zeros(0, 100), 16_000), "at least one channel"),
    Misuse("sound at a negative rate", lambda _: Waveform(torch.zeros(1, 100), -1), "a number above 0"),
    Misuse("steps that are no number", lambda _: SamplerSettings(num_inference_steps=NAN), '"steps" cannot be nan'),
    Misuse(
        "a scheduler that is code",
        lambda _: SamplerSettings(scheduler="__import__('os')"),
        '"sampler_name" cannot be __import__',
    ),
    Misuse("a silence that is none", lambda _: AudioSettings(silence="loud"), '"silence" cannot be loud'),
]
