"""Background sound under the speech: time, level, ducking and peaks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentsync.audio import background
from latentsync.audio.background import (
    ATTACK_S,
    CEILING_DB,
    LOOKAHEAD_S,
    RELEASE_S,
    BackgroundSettings,
    add_background,
    ducking_gain,
    limit,
    true_peaks,
)
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError, UsageError
from tests.support import procedural, tiny_networks

RATE = 48_000
CEILING = 10 ** (CEILING_DB / 20)


def mixed(speech: Waveform, under: Waveform, gain_db: float = 0, ducking_db: float = 0) -> Waveform:
    return add_background(speech, under, BackgroundSettings(gain_db, ducking_db))


def clicks(seconds: float, every: float, level: float = 0.5) -> Waveform:
    samples = torch.zeros(1, round(seconds * RATE))
    samples[0, :: round(every * RATE)] = level
    return Waveform(samples, RATE)


def test_background_click_track_is_sample_exact() -> None:
    """Both start together, and nothing between them moves."""
    speech, under = clicks(3, 0.5, 0.3), clicks(3, 0.3, 0.2)
    assert torch.equal(mixed(speech, under).samples, speech.samples + under.samples)


def test_background_gain_is_in_decibels() -> None:
    silent = Waveform(torch.zeros(1, RATE), RATE)
    made = mixed(silent, clicks(1, 0.25), gain_db=-6, ducking_db=20)
    assert float(made.samples.max()) == pytest.approx(0.5 * 10 ** (-6 / 20)), "silence does not duck"


@pytest.mark.parametrize(("seconds", "rate"), [(0.7, 48_000), (2.5, 48_000), (0.7, 22_050), (3.1, 44_100), (2, 96_000)])
def test_background_ends_with_the_speech(seconds: float, rate: int) -> None:
    speech = Waveform(0.1 * tiny_networks.normal(1, 2, 44_100 * 2 + 7), 44_100)
    under = Waveform(0.1 * tiny_networks.normal(2, 1, round(seconds * rate)), rate)
    made = mixed(speech, under)
    assert (made.rate, made.samples.shape[0]) == (max(rate, 44_100), 2)
    assert abs(made.duration_seconds - speech.duration_seconds) <= Fraction(1, made.rate), "one sample frame"
    if rate == 44_100 or seconds == 0.7:
        end = made.samples[:, round(1.5 * made.rate) :]
        assert bool((end != 0).any())


def test_background_ducks_under_speech_only() -> None:
    """Two seconds of speech in the middle of six: the room is 20 dB quieter there, and as loud as ever at the ends."""
    samples = torch.zeros(1, 6 * 16_000)
    samples[0, 2 * 16_000 : 4 * 16_000] = torch.from_numpy(procedural.speech(2.0))
    speech = Waveform(samples, 16_000)
    room = Waveform(0.01 * tiny_networks.normal(3, 1, 6 * 16_000), 16_000)
    heard = (mixed(speech, room, ducking_db=20).samples - speech.samples)[0] / room.samples[0]
    np.testing.assert_allclose(heard[: round(1.5 * 16_000)], 1, rtol=1e-3)
    np.testing.assert_allclose(heard[-16_000:], 1, rtol=1e-3)
    middle = heard[round(2.2 * 16_000) : round(3.8 * 16_000)]
    assert float(middle.median()) == pytest.approx(0.1, rel=0.01)


def test_background_ducking_has_attack_and_release() -> None:
    is_speech = np.zeros(300, bool)
    is_speech[100:150] = True
    gain = 20 * ducking_gain(is_speech, 12, 1000, 3000).log10().numpy()
    starts, ends = round(1000 * (1 - ATTACK_S)), round(1000 * (1.5 + RELEASE_S))
    np.testing.assert_allclose(gain[:starts], 0, atol=1e-4)
    np.testing.assert_allclose(gain[ends:], 0, atol=1e-4)
    np.testing.assert_allclose(gain[1000:1501], -12, atol=1e-4)
    np.testing.assert_allclose(gain[starts:1001], np.linspace(0, -12, 1001 - starts), atol=1e-3)
    np.testing.assert_allclose(gain[1500 : ends + 1], np.linspace(-12, 0, ends + 1 - 1500), atol=1e-3)


def test_background_ducking_stays_down_in_short_pauses() -> None:
    is_speech = np.ones(300, bool)
    is_speech[140:150] = False
    gain = 20 * ducking_gain(is_speech, 12, 1000, 3000).log10().numpy()
    assert gain[1390:1510].max() < -12 + 12 * 0.1 / RELEASE_S + 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_background_full_scale_inputs_do_not_clip(seed: int) -> None:
    speech = Waveform(tiny_networks.normal(seed, 2, RATE).clamp(-1, 1), RATE)
    under = Waveform(tiny_networks.normal(seed + 9, 2, RATE).sign(), RATE)
    made = mixed(speech, under)
    assert float(made.samples.abs().max()) <= CEILING
    assert float(true_peaks(made.samples).max()) <= 1.02 * CEILING, "the gain changes a little between samples"
    assert float(true_peaks(made.samples).max()) < 1
    assert float(made.samples.abs().max()) > 0.5


def test_background_limiter_is_smooth_and_local() -> None:
    time = torch.arange(RATE) / RATE
    tone = 0.5 * torch.sin(2 * torch.pi * 440 * time)
    loud = tone.clone()
    loud[20_000:20_500] *= 3
    made = limit(loud[None], RATE)[0]
    reach = 2 * round(LOOKAHEAD_S * RATE) + 2 * background.HALF_TAPS
    for part in (slice(0, 20_000 - reach), slice(20_500 + reach, None)):
        torch.testing.assert_close(made[part], loud[part], rtol=1e-6, atol=0)
    audible = loud.abs() > 0.05
    gain = (made / loud)[audible]
    assert float(gain.min()) > 0.55, "1.5 needs 0.59"
    step = (made[1:] / loud[1:] - made[:-1] / loud[:-1])[audible[1:] & audible[:-1]]
    assert float(step.abs().max()) < 2 / (LOOKAHEAD_S * RATE), "no step: the gain takes milliseconds to change"


def test_background_true_peak_is_between_samples() -> None:
    """A tone at a quarter of the rate, sampled beside its peaks: the samples are at 0.71 of its amplitude."""
    tone = torch.sin(torch.pi / 2 * torch.arange(4000) + torch.pi / 4)[None]
    assert float(tone.abs().max()) == pytest.approx(0.7071, abs=1e-3)
    assert float(true_peaks(tone)[100:-100].min()) == pytest.approx(1, abs=0.02)


@settings(max_examples=25)
@given(st.integers(1, 500), st.integers(0, 5))
def test_background_limiter_takes_every_length(count: int, seed: int) -> None:
    made = limit(3 * tiny_networks.normal(seed, 1, count), RATE)
    assert made.shape == (1, count)
    assert float(made.abs().max()) <= CEILING * 1.0001


def test_background_quiet_mix_stays_exact() -> None:
    quiet = 0.1 * tiny_networks.normal(0, 2, 1000).clamp(-3, 3)
    assert limit(quiet, RATE) is quiet


def test_background_names_what_does_not_fit() -> None:
    speech = clicks(1, 0.5)
    with pytest.raises(AudioError, match='"background" has 6 channels, and the speech has 2'):
        mixed(Waveform(torch.zeros(2, RATE), RATE), Waveform(torch.zeros(6, RATE), RATE))
    with pytest.raises(AudioError, match='"background" contains 1 NaN'):
        mixed(speech, Waveform(torch.tensor([[0.0] * 999 + [torch.nan]]), RATE))
    with pytest.raises(UsageError, match='"background_gain_db" cannot be 41'):
        BackgroundSettings(gain_db=41)
    with pytest.raises(UsageError, match='"ducking_db" cannot be -1'):
        BackgroundSettings(ducking_db=-1)
