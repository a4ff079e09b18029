"""Mixing recordings: length, level, rate and channels."""

from __future__ import annotations

import pytest
import torch

from latentsync.audio.waveform import Waveform, mix
from latentsync.errors import AudioError


def tone(hertz: float, rate: int, seconds: float, channels: int = 1, level: float = 0.4) -> Waveform:
    wave = level * torch.sin(2 * torch.pi * hertz * torch.arange(round(rate * seconds)) / rate)
    return Waveform(wave.repeat(channels, 1), rate)


def test_mix_of_one_is_unchanged() -> None:
    alone = tone(220, 44100, 1, level=3)
    assert mix([alone]) is alone


def test_mix_plays_the_same_recording_once() -> None:
    first, again = tone(220, 44100, 1), tone(220, 44100, 1)
    assert mix([first, again]) is first


def test_mix_adds_and_has_the_longest_length() -> None:
    first, second = tone(220, 44100, 1), tone(330, 44100, 0.5)
    both = mix([first, second])
    assert both.samples.shape == (1, 44100)
    assert torch.equal(both.samples[:, 22050:], first.samples[:, 22050:])
    assert torch.allclose(both.samples[:, :22050], first.samples[:, :22050] + second.samples)


def test_mix_scales_down_instead_of_clipping() -> None:
    both = mix([tone(220, 44100, 1, level=0.9), tone(221, 44100, 1, level=0.9)])
    assert float(both.samples.abs().max()) == pytest.approx(1)


def test_mix_converts_rates_and_channels() -> None:
    both = mix([tone(220, 16000, 1), tone(220, 48000, 1, channels=2, level=0.2)])
    assert (both.rate, tuple(both.samples.shape)) == (48000, (2, 48000))
    expected = tone(220, 48000, 1, channels=2, level=0.6).samples
    # away from the ends, where the resampler's filter has nothing to look at
    assert (both.samples - expected)[:, 1000:-1000].abs().max() < 0.01


def test_mix_names_channels_it_cannot_mix() -> None:
    with pytest.raises(AudioError, match="2 and 6 channels"):
        mix([tone(220, 48000, 1, channels=2), tone(330, 48000, 1, channels=6)])
