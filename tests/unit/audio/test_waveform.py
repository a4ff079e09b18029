"""Recordings: what is refused, resampling, and offsets."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from latentsync.audio import features, waveform
from latentsync.audio.features import prepare_driving_audio
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError
from tests.support import tiny_networks


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, channels: int = 2) -> Waveform:
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return Waveform((0.5 * torch.sin(2 * torch.pi * hertz * t)).float().expand(channels, -1), rate)


def noise(seed: int, channels: int, count: int) -> Tensor:
    """Noise without a DC offset."""
    samples = 0.1 * tiny_networks.normal(seed, channels, count)
    return samples - samples.mean()


def whole(heard: features.DrivingAudio) -> Tensor:
    return torch.cat(list(heard))


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_waveform_resampling_keeps_time_and_pitch(rate: int, channels: int) -> None:
    given, expected = whole(prepare_driving_audio(tone(rate, channels=channels))), tone(16_000).samples[0]
    assert given.dtype == torch.float32
    assert len(given) == len(expected)
    middle = slice(1000, 15_000)  # away from the filter's run-in
    # the resampler's passband is flat to about a thousandth
    torch.testing.assert_close(given[middle], expected[middle], atol=2e-3, rtol=0)


def test_waveform_blocks_equal_the_whole() -> None:
    long = tone(48_000, seconds=1.5 * waveform.BLOCK_SAMPLES / 48_000)
    given = whole(prepare_driving_audio(long))
    expected = tone(16_000, seconds=float(long.duration_seconds)).samples[0]
    torch.testing.assert_close(given[1000:-1000], expected[1000 : len(given) - 1000], atol=2e-3, rtol=0)


def test_waveform_at_target_rate_is_only_mixed() -> None:
    samples = noise(1, 2, 1600)
    heard = prepare_driving_audio(Waveform(samples, 16_000))
    assert torch.equal(whole(heard), samples.mean(dim=0))
    assert torch.equal(whole(heard), samples.mean(dim=0))


@pytest.mark.parametrize("shift", [1, -1, 237, -4000])
def test_waveform_offset_is_exact_to_the_sample(shift: int) -> None:
    samples = noise(2, 1, 16_000)
    given = whole(prepare_driving_audio(Waveform(samples, 16_000), offset_seconds=Fraction(shift, 16_000)))
    assert len(given) == 16_000
    moved, kept = (given[shift:], samples[0, : 16_000 - shift]) if shift > 0 else (given[:shift], samples[0, -shift:])
    assert torch.equal(moved, kept)
    assert not (given[:shift] if shift > 0 else given[shift:]).any(), "silence where there is no recording"


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_waveform_vocals_are_fitted_to_audio_length(seconds: float) -> None:
    vocals = tone(16_000, seconds)
    given = whole(prepare_driving_audio(Waveform(noise(3, 2, 48_000), 48_000), vocals))
    assert len(given) == 16_000
    both = min(16_000, vocals.samples.shape[1])
    assert torch.equal(given[:both], vocals.samples[0, :both])
    assert not given[both:].any()


def test_waveform_of_10_ms_gives_one_frame() -> None:
    samples = noise(4, 1, 480)
    given = whole(prepare_driving_audio(Waveform(samples, 48_000)))
    assert len(given) == features.SHORTEST_SAMPLES
    assert given[:100].any()


def test_waveform_dc_counts_as_silence() -> None:
    plain, lifted = tone(16_000), tone(16_000)
    given = whole(prepare_driving_audio(Waveform(lifted.samples + 0.25, 16_000)))
    torch.testing.assert_close(given, plain.samples[0], atol=1e-5, rtol=0)  # the mean of float32 samples
    assert float(lifted.samples.mean().abs()) < 1e-3, "the recording itself stays as it was"


def test_waveform_clipped_audio_is_accepted() -> None:
    clipped = Waveform((tone(16_000).samples * 8).clamp(-1, 1), 16_000)
    assert torch.equal(whole(prepare_driving_audio(clipped)), clipped.samples[0])


def damaged(*at: int, value: float = float("nan")) -> Tensor:
    samples = noise(5, 2, 16_000)
    samples[1, list(at)] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (torch.zeros(2, 0), "only 0 samples"),
        (torch.ones(1, 159), "less than 10 ms. Give a recording"),
        (torch.zeros(2, 16_000), "silent throughout the 1.0 s. Give a recording"),
        (torch.full((1, 16_000), 0.5), "silent"),
        (torch.full((1, 16_000), 1e-6), "silent"),
        (damaged(8000, 9000), "2 samples are not numbers, the first at 0.500 s. Export"),
        (damaged(4000, value=float("-inf")), "1 samples are not numbers, the first at 0.250 s"),
        (damaged(1, value=32767.0), "reaches 32767 where 1 is full scale"),
    ],
)
def test_waveform_without_audio_is_refused(samples: Tensor, said: str) -> None:
    with pytest.raises(AudioError, match=f"the audio: .*{said}"):
        prepare_driving_audio(Waveform(samples, 16_000))


def test_waveform_error_names_the_recording() -> None:
    with pytest.raises(AudioError, match="the vocals: silent"):
        prepare_driving_audio(tone(16_000), Waveform(torch.zeros(1, 16_000), 16_000))
    with pytest.raises(AudioError, match="the audio: 1 samples are not numbers"):
        prepare_driving_audio(Waveform(damaged(5), 16_000), tone(16_000))


def test_waveform_silent_audio_may_have_vocals() -> None:
    assert whole(prepare_driving_audio(Waveform(torch.zeros(1, 16_000), 16_000), tone(16_000))).any()


@pytest.mark.parametrize("offset_ms", [1000, -1000, 60_000])
def test_waveform_offset_that_leaves_nothing_is_refused(offset_ms: int) -> None:
    with pytest.raises(AudioError, match=f"an offset of {offset_ms} ms leaves none of the audio"):
        prepare_driving_audio(tone(16_000), offset_seconds=Fraction(offset_ms, 1000))
