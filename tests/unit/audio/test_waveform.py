"""Waveforms: what is refused, how they are resampled, and how they are fitted to a number of frames."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from latentsync.audio import waveform
from latentsync.audio.waveform import Waveform, check_not_silent, check_samples, resample, resample_blocks
from latentsync.errors import AudioError
from tests.support import tiny_networks


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, channels: int = 2) -> Waveform:
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return Waveform((0.5 * torch.sin(2 * torch.pi * hertz * t)).float().expand(channels, -1), rate)


def noise(channels: int, count: int) -> Tensor:
    return 0.1 * tiny_networks.normal(5, channels, count)


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_waveform_resampling_keeps_time_and_pitch(rate: int, channels: int) -> None:
    resampled, expected = resample(tone(rate, channels=channels), 16_000), tone(16_000, channels=channels)
    assert resampled.samples.dtype == torch.float32
    assert resampled.samples.shape == expected.samples.shape
    middle = slice(1000, 15_000)  # away from the run-in of the filter
    # the passband of the resampler is flat to about a thousandth
    torch.testing.assert_close(resampled.samples[:, middle], expected.samples[:, middle], atol=2e-3, rtol=0)


@pytest.mark.parametrize("block", [997, 1 << 20])
def test_waveform_resampling_does_not_depend_on_blocks(block: int) -> None:
    samples = tiny_networks.normal(1, 50_000)
    whole = resample_blocks([samples], 44_100, 16_000, 18_141)
    assert torch.equal(resample_blocks(samples.split(block), 44_100, 16_000, 18_141), whole)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_waveform_resampling_pads_and_trims(rate: int) -> None:
    samples = tone(rate).samples[0]
    whole = resample_blocks([samples], rate, 16_000, 16_000)
    assert torch.equal(resample_blocks(samples.split(1000), rate, 16_000, 900), whole[:900])
    longer = resample_blocks(samples.split(1000), rate, 16_000, 20_000)
    torch.testing.assert_close(longer[:15_900], whole[:15_900])
    assert not longer[16_100:].any()


def test_waveform_fits_a_number_of_frames() -> None:
    sound = Waveform(torch.ones(2, 44_100), 44_100)
    assert sound.fit_to(25, Fraction(25)) is sound
    longer = sound.fit_to(50, Fraction(25))
    assert (longer.samples.shape, float(longer.samples.sum())) == ((2, 88_200), 88_200.0)
    assert not longer.samples[:, 44_100:].any()
    assert sound.fit_to(5, Fraction(25)).samples.shape == (2, 8820)
    assert sound.pad_or_trim(Fraction(1, 2)).samples.shape == (2, 22_050)


def damaged(*at: int, value: float = float("nan")) -> Tensor:
    samples = noise(2, 16_000)
    samples[1, list(at)] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (torch.zeros(2, 0), r"is shorter than 10 ms \(0 samples\)"),
        (torch.ones(1, 159), r"is shorter than 10 ms \(159 samples\). Use a recording"),
        (damaged(8000, 9000), "contains 2 NaN or infinite samples. The first is at 0.500 s. Export"),
        (damaged(4000, value=float("-inf")), "contains 1 NaN or infinite samples. The first is at 0.250 s"),
        (damaged(1, value=32767.0), "has a peak of 32767, but full scale is 1"),
    ],
)
def test_waveform_that_is_no_audio_is_refused(samples: Tensor, reason: str) -> None:
    with pytest.raises(AudioError, match=f'"audio" {reason}'):
        check_samples(Waveform(samples, 16_000), "audio")


@pytest.mark.parametrize(
    "samples", [torch.zeros(2, 16_000), torch.full((1, 16_000), 0.5), torch.full((1, 16_000), 1e-6)]
)
def test_waveform_of_silence_is_refused(samples: Tensor) -> None:
    with pytest.raises(AudioError, match=r'"vocals" is completely silent \(1\.0 s\)'):
        check_not_silent(Waveform(samples, 16_000), "vocals")


def test_waveform_of_low_rate_is_refused() -> None:
    with pytest.raises(AudioError, match='"audio" has a sample rate of 100 Hz, too low'):
        check_samples(tone(100), "audio")


def test_waveform_checks_accept_clipped_audio() -> None:
    clipped = Waveform((tone(16_000).samples * 8).clamp(-1, 1), 16_000)
    check_samples(clipped, "audio")
    check_not_silent(clipped, "audio")


def test_waveform_resampling_keeps_the_length_of_long_audio() -> None:
    long = tone(48_000, seconds=1.5 * waveform.BLOCK_SAMPLES / 48_000, channels=1)
    resampled = resample(long, 16_000)
    expected = tone(16_000, seconds=float(long.duration_seconds), channels=1)
    assert resampled.samples.shape == expected.samples.shape
    torch.testing.assert_close(resampled.samples[:, 1000:-1000], expected.samples[:, 1000:-1000], atol=2e-3, rtol=0)
