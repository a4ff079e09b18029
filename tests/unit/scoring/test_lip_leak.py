"""Open mouths in silence."""

from __future__ import annotations

import numpy as np
import torch

from latentsync.scoring.lip_leak import lip_leak
from tests.support.procedural import speech


def talk_and_pause() -> torch.Tensor:
    """Two seconds of speech, two of silence."""
    return torch.from_numpy(np.concatenate([speech(2), np.zeros(32_000, np.float32)]))


def test_lip_leak_counts_open_mouths_in_the_pause_alone() -> None:
    openings = np.full(100, 0.4)
    openings[70:] = 0.01
    leak = lip_leak(openings, talk_and_pause())
    assert 35 <= leak.silent_frames <= 48, "the pause without the hold time of the speech"
    assert leak.open_frames == leak.silent_frames - 30
    assert leak.share == leak.open_frames / leak.silent_frames


def test_lip_leak_ignores_frames_without_the_face() -> None:
    openings = np.full(100, 0.4)
    openings[75:] = np.nan
    assert lip_leak(openings, talk_and_pause()).silent_frames <= 25


def test_lip_leak_of_silence_and_of_speech() -> None:
    assert lip_leak(np.full(50, 0.2), torch.zeros(32_000)) == (50, 50)
    assert lip_leak(np.zeros(50), torch.zeros(32_000)) == (50, 0)
    buzz = torch.from_numpy(speech(30)).roll(100)
    leak = lip_leak(np.full(0, 0.2), buzz)
    assert leak.silent_frames == 0
    assert leak.share is None
