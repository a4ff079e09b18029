"""The driving audio: 16 kHz mono, in time with the audio of the video, offset to the sample."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from latentsync.audio.driving_audio import MIN_SAMPLES, prepare_driving_audio
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError
from tests.support import tiny_networks


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, channels: int = 2) -> Waveform:
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return Waveform((0.5 * torch.sin(2 * torch.pi * hertz * t)).float().expand(channels, -1), rate)


def noise(seed: int, channels: int, count: int) -> Tensor:
    """Without a DC offset."""
    samples = 0.1 * tiny_networks.normal(seed, channels, count)
    return samples - samples.mean()


@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_driving_audio_is_16_khz_mono(rate: int, channels: int) -> None:
    audio = tone(rate, channels=channels)
    driving_audio = prepare_driving_audio(audio)
    samples, expected = driving_audio.samples, tone(16_000).samples[0]
    assert (samples.dtype, samples.shape) == (torch.float32, expected.shape)
    assert driving_audio.waveform is audio
    assert driving_audio.duration_seconds == 1
    # the passband of the resampler is flat to about a thousandth, away from its run-in
    torch.testing.assert_close(samples[1000:15_000], expected[1000:15_000], atol=2e-3, rtol=0)


def test_driving_audio_at_16_khz_is_only_mixed_down() -> None:
    samples = noise(1, 2, 1600)
    assert torch.equal(prepare_driving_audio(Waveform(samples, 16_000)).samples, samples.mean(dim=0))


@pytest.mark.parametrize("offset", [1, -1, 237, -4000])
def test_driving_audio_offset_is_exact_to_the_sample(offset: int) -> None:
    samples = noise(2, 1, 16_000)
    driving_audio = prepare_driving_audio(Waveform(samples, 16_000), offset_seconds=Fraction(offset, 16_000))
    shifted = driving_audio.samples
    assert driving_audio.offset_samples == offset
    assert len(shifted) == 16_000
    if offset > 0:
        assert torch.equal(shifted[offset:], samples[0, :-offset])
        assert not shifted[:offset].any(), "silence before the recording"
    else:
        assert torch.equal(shifted[:offset], samples[0, -offset:])
        assert not shifted[offset:].any(), "silence after the recording"


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_driving_audio_fits_vocals_to_the_audio(seconds: float) -> None:
    vocals = tone(16_000, seconds)
    driving_audio = prepare_driving_audio(Waveform(noise(3, 2, 48_000), 48_000), vocals)
    samples = driving_audio.samples
    assert driving_audio.has_vocals
    assert len(samples) == 16_000
    common = min(16_000, vocals.samples.shape[1])
    assert torch.equal(samples[:common], vocals.samples[0, :common])
    assert not samples[common:].any()


def test_driving_audio_of_10_ms_gives_one_frame() -> None:
    samples = prepare_driving_audio(Waveform(noise(4, 1, 480), 48_000)).samples
    assert len(samples) == MIN_SAMPLES
    assert samples[:100].any()


def test_driving_audio_has_no_dc_offset() -> None:
    plain, lifted = tone(16_000), Waveform(tone(16_000).samples + 0.25, 16_000)
    samples = prepare_driving_audio(lifted).samples
    torch.testing.assert_close(samples, plain.samples[0], atol=1e-5, rtol=0)  # the mean of float32 samples
    assert float(lifted.samples.mean()) == pytest.approx(0.25, abs=1e-3), "the recording itself does not change"


def test_driving_audio_names_the_wrong_input() -> None:
    silence = Waveform(torch.zeros(1, 16_000), 16_000)
    damaged = Waveform(torch.full((1, 16_000), float("nan")), 16_000)
    with pytest.raises(AudioError, match='"audio" is completely silent'):
        prepare_driving_audio(silence)
    with pytest.raises(AudioError, match='"vocals" is completely silent'):
        prepare_driving_audio(tone(16_000), silence)
    with pytest.raises(AudioError, match='"audio" contains 16000 NaN'):
        prepare_driving_audio(damaged, tone(16_000))


def test_driving_audio_takes_vocals_for_silent_audio() -> None:
    assert prepare_driving_audio(Waveform(torch.zeros(1, 16_000), 16_000), tone(16_000)).samples.any()


@pytest.mark.parametrize("offset_ms", [1000, -1000, 60_000])
def test_driving_audio_offset_beyond_the_audio_is_refused(offset_ms: int) -> None:
    with pytest.raises(AudioError, match=f'"offset_ms" is {offset_ms} and moves all of "audio"'):
        prepare_driving_audio(tone(16_000), offset_seconds=Fraction(offset_ms, 1000))
