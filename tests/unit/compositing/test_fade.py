"""Opacity of the new lips beside frames that stay unchanged."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import lip_opacity
from latentsync.faces.face_track import FaceTrack
from latentsync.sampling.lip_track import LipTrack
from latentsync.video.timeline import Timeline
from latentsync.weights import random_init
from tests.support.image_clip import Clip


def opacities(active: str, shots: str | None = None) -> list[float]:
    """`active` has an x for each frame with new lips, `shots` the number of its shot."""
    count, shots = len(active), shots or "1" * len(active)
    cuts = tuple(i for i in range(1, count) if shots[i] != shots[i - 1])
    track = FaceTrack(Clip(np.zeros((count, 8, 8, 3), np.uint8)), np.ones((count, 3, 2)), cuts)
    has_lips = np.array([mark == "x" for mark in active])
    latent_index = np.where(has_lips, np.cumsum(has_lips) - 1, -1)
    timeline = Timeline(Fraction(25), tuple(range(count)))
    waveform = Waveform(torch.zeros(1, 640 * count), 16000)
    lips = LipTrack(track, timeline, torch.zeros(has_lips.sum(), 4, 8, 8), latent_index, waveform, random_init.vae())
    return lip_opacity(lips).tolist()


def test_fade_is_three_frames_around_a_gap() -> None:
    assert opacities("xxxxx...xxxxx") == [1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_fade_skips_clip_ends_and_shot_ends() -> None:
    assert opacities("xxxxx") == [1] * 5
    assert opacities("xxxx....", "11112222") == [1, 1, 1, 1, 0, 0, 0, 0]
    assert opacities("..xxxx", "112222") == [0, 0, 1, 1, 1, 1]


def test_fade_of_short_run_stays_below_full_opacity() -> None:
    assert opacities("..xxx..") == [0, 0, 0.25, 0.5, 0.25, 0, 0]
    assert opacities(".x.") == [0, 0.25, 0]


@pytest.mark.parametrize("active", ["x", ".", "...", "xx.."])
def test_fade_without_lips_is_zero(active: str) -> None:
    assert [opacity == 0 for opacity in opacities(active)] == [mark == "." for mark in active]
