"""A network with the interface of SyncNet that compares brightness with loudness, and clips in which both agree."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from latentsync.audio.waveform import SAMPLE_RATE, Waveform
from latentsync.faces.face_track import FaceTrack
from latentsync.models.syncnet import FEATURES, SyncNet
from latentsync.video.frame_source import ImageBatch
from tests.support.image_clip import Clip

FRAME_SAMPLES = SAMPLE_RATE // 25
LOUDNESS = 100  # of the sound in 16-bit units / brightness of the frame
ENERGY_ROOT = 19.7  # root of the energy of one MFCC frame of white noise / its standard deviation
FACE_BOX = (20.0, 20.0, 28.0, 28.0)
SIZE_PX = 64


class LevelNet(SyncNet):
    """Its features are the mean brightness of 5 frames, and the mean loudness of 0.2 s in the same unit."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.scale = nn.Parameter(torch.full((FEATURES,), FEATURES**-0.5), requires_grad=False)

    def video(self, crops: Tensor) -> Tensor:
        return crops.mean(dim=(1, 2, 3)).unfold(0, 5, 1).mean(dim=1)[:, None] * self.scale

    def audio(self, mfcc: Tensor) -> Tensor:
        return (mfcc[:, 0] / 2).exp().mean(dim=1)[:, None] / (ENERGY_ROOT * LOUDNESS) * self.scale


def brightness(count: int) -> np.ndarray:
    """A level for each frame, without any period."""
    return np.random.default_rng(3).integers(40, 200, count)


def sound(levels: np.ndarray, lag_frames: int = 0) -> Waveform:
    """Noise as loud as each level, delayed by `lag_frames` frames (silence first), or early if that is negative."""
    loudness = np.roll(levels, lag_frames).astype(float)
    if lag_frames > 0:
        loudness[:lag_frames] = 0
    noise = np.random.default_rng(4).standard_normal(len(levels) * FRAME_SAMPLES)
    samples = noise * np.repeat(loudness, FRAME_SAMPLES) * LOUDNESS / 32768
    return Waveform(torch.from_numpy(samples).float()[None], SAMPLE_RATE)


def frames(levels: np.ndarray) -> np.ndarray:
    """uint8 (n, 64, 64, 3): a gray picture of each level."""
    return np.broadcast_to(levels[:, None, None, None], (len(levels), SIZE_PX, SIZE_PX, 3)).astype(np.uint8)


def boxes(count: int) -> np.ndarray:
    return np.tile(np.array(FACE_BOX), (count, 1))


def track_at(levels: np.ndarray, rate: Fraction = Fraction(25), mouth_opening: float = 0.3) -> FaceTrack:
    """The face in a clip that has these levels at 25 fps, as frames at another rate.

    A frame has the level that begins while it is shown.
    """
    count = int(len(levels) * rate / 25)
    shown = frames(levels)[[min(ceil(i * 25 / rate), len(levels) - 1) for i in range(count)]]
    source = Clip(shown) if rate == 25 else ImageBatch(torch.from_numpy(shown).float() / 255, rate)
    points = np.tile(np.array([[22.0, 22], [26, 22], [24, 25]]), (count, 1, 1))
    return FaceTrack(source, points, boxes=boxes(count), mouth_openings=np.full(count, mouth_opening))
