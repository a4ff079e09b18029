"""Sound: what is refused, how it is resampled, which states each frame hears."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync import audio, synthetic
from latentsync.errors import AudioError
from latentsync.types import Waveform
from tests import parity
from tests.golden import procedural


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, channels: int = 2) -> Waveform:
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return Waveform((0.5 * torch.sin(2 * torch.pi * hertz * t)).float().expand(channels, -1), rate)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampled_sound_stays_in_time_and_tune(rate: int) -> None:
    given = audio.resample(tone(rate))
    expected = tone(16_000, channels=1).samples[0]
    assert given.dtype == torch.float32
    assert abs(len(given) - len(expected)) <= 1
    middle = slice(1000, 15_000)  # away from the filter's run-in
    # the resampler's passband is flat to about a thousandth
    torch.testing.assert_close(given[middle], expected[middle], atol=2e-3, rtol=0)


def test_pieces_are_invisible() -> None:
    long = tone(48_000, seconds=1.5 * audio.RESAMPLED_AT_ONCE / 48_000)
    given = audio.resample(long)
    expected = tone(16_000, seconds=float(long.duration_seconds), channels=1).samples[0]
    torch.testing.assert_close(given[1000:-1000], expected[1000 : len(given) - 1000], atol=2e-3, rtol=0)


def test_sound_at_the_right_rate_is_only_mixed() -> None:
    samples = parity.normal(1, 2, 1600)
    assert torch.equal(audio.resample(Waveform(samples, 16_000)), samples.mean(dim=0))


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (torch.zeros(2, 0), "only 0 samples"),
        (torch.ones(1, 639), "less than one frame"),
        (torch.zeros(2, 16_000), "silent throughout its 1.0 s"),
        (torch.full((1, 16_000), 1e-6), "silent"),
        (torch.full((1, 16_000), float("nan")), "not numbers"),
    ],
)
def test_what_holds_no_sound_is_refused(samples: torch.Tensor, said: str) -> None:
    with pytest.raises(AudioError, match=said) as raised:
        audio.resample(Waveform(samples, 16_000))
    assert "Give a recording" in str(raised.value)


def test_windows_are_ten_positions_around_the_instant() -> None:
    states = torch.arange(40.0)[:, None, None].expand(-1, 5, 384)
    heard = audio.windows(states, range(20), Fraction(25))
    assert heard.shape == (20, 50, 384)
    positions = heard[:, ::5, 0].int().tolist()
    assert positions[10] == list(range(16, 26))
    assert positions[0] == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert positions[19] == [34, 35, 36, 37, 38, 39, 39, 39, 39, 39]


def test_windows_keep_the_states_of_a_position_together() -> None:
    states = torch.arange(200.0).view(40, 5)[:, :, None].expand(-1, -1, 384)
    assert audio.windows(states, [10], Fraction(25))[0, :, 0].tolist() == list(range(80, 130))


def test_windows_at_a_fractional_rate_round_down() -> None:
    states = torch.arange(200.0)[:, None, None].expand(-1, 5, 384)
    heard = audio.windows(states, [30], Fraction(30_000, 1001))  # 1.001 s: position 50.05
    assert int(heard[0, 20, 0]) == 50


def test_segments_join_to_fifty_positions_a_second() -> None:
    segments = list(audio.embed(torch.from_numpy(procedural.speech(31.0)), synthetic.whisper()))
    assert [tuple(states.shape) for states in segments] == [(1500, 5, 384), (50, 5, 384)]


def test_real_speech_gives_the_recorded_states(shared: Path) -> None:
    import av

    with av.open(str(shared / "media" / "demo1_audio.wav")) as container:
        rate = container.streams.audio[0].rate
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    waveform = Waveform(torch.from_numpy(samples).float() / 32768, rate)
    with np.load(shared / "golden" / "real" / "audio_demo1.npz") as golden:
        states = torch.cat(list(audio.embed(audio.resample(waveform), parity.whisper())))
        assert len(states) == int(golden["n_features"])
        # recorded after another attention kernel: as the case in tests/golden
        given = audio.windows(states, golden["index"].tolist(), Fraction(25))
        assert parity.worst(given, golden["embeddings"]) < 2e-3
