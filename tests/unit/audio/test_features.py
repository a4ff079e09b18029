"""Hidden states equal those of the official code without its jumps, and frame windows pick the right ones."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.audio import features, mel
from latentsync.audio.features import Segments
from latentsync.audio.reader import read_audio
from tests.support import procedural, tiny_networks

SECONDS = 52.0


@cache
def procedural_states(segments: Segments) -> Tensor:
    """Hidden states of a recording with a cut in it, without the silence around it."""
    states = encode(torch.from_numpy(procedural.speech(SECONDS)), segments)
    return states if segments == "official" else states[features.BEFORE : -features.AFTER]


def encode(samples: Tensor, segments: Segments, is_closed: np.ndarray | None = None) -> Tensor:
    peak = mel.log_peak(mel.mel_power(samples))
    return torch.cat(list(features.encode_audio(samples, tiny_networks.whisper(), peak, segments, is_closed)))


def steps(states: Tensor) -> Tensor:
    """Distance of each position's hidden states from those before it."""
    return states.diff(dim=0).flatten(1).norm(dim=1)


def test_frame_windows_center_on_the_frame() -> None:
    states = torch.arange(40.0)[:, None, None].expand(-1, 5, 384)
    windows = features.frame_windows(states, range(20), Fraction(25))
    assert windows.shape == (20, 50, 384)
    positions = windows[:, ::5, 0].int().tolist()
    assert positions[10] == list(range(16, 26))
    assert positions[0] == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert positions[19] == [34, 35, 36, 37, 38, 39, 39, 39, 39, 39]


def test_frame_windows_reach_before_the_clip() -> None:
    states = torch.arange(-4.0, 36.0)[:, None, None].expand(-1, 5, 384)
    positions = features.frame_windows(states, [0, 1, 10], Fraction(25), start=-4)[:, ::5, 0].int()
    assert positions.tolist() == [list(range(-4, 6)), list(range(-2, 8)), list(range(16, 26))]


def test_frame_windows_keep_layers_together() -> None:
    states = torch.arange(200.0).view(40, 5)[:, :, None].expand(-1, -1, 384)
    assert features.frame_windows(states, [10], Fraction(25))[0, :, 0].tolist() == list(range(80, 130))


def test_frame_windows_round_down_at_fractional_fps() -> None:
    states = torch.arange(200.0)[:, None, None].expand(-1, 5, 384)
    windows = features.frame_windows(states, [30], Fraction(30_000, 1001))  # 1.001 s: position 50.05
    assert int(windows[0, 20, 0]) == 50


@pytest.mark.parametrize("segments", ["official", "overlapping"])
@pytest.mark.parametrize("seconds", [0.04, 29.99, 30.0, 30.02, 45.01, 60.0])
def test_features_have_fifty_positions_per_second(seconds: float, segments: Segments) -> None:
    samples = torch.from_numpy(procedural.speech(seconds))

    def encoder(mels: Tensor) -> Tensor:
        return torch.zeros(1, mels.shape[2] // 2, 5, 384)

    encoder.parameters = lambda: iter([torch.zeros(1)])  # type: ignore[attr-defined]
    peak = mel.log_peak(mel.mel_power(samples))
    chunks = list(features.encode_audio(samples, encoder, peak, segments))  # type: ignore[arg-type]
    padding = features.BEFORE + features.AFTER if segments == "overlapping" else 0
    assert sum(map(len, chunks)) == len(samples) // 320 + padding
    assert len(chunks) == features.num_chunks(mel.num_mels(samples), segments)


def test_features_match_official_away_from_cuts() -> None:
    official, ours = procedural_states("official"), procedural_states("overlapping")
    assert len(ours) == len(official) == 2600
    for first, end in ((0, 20), (40, 52)):
        assert torch.equal(ours[first * 50 : end * 50], official[first * 50 : end * 50])


def test_features_of_short_audio_match_official() -> None:
    samples = torch.from_numpy(procedural.speech(9.0))
    assert torch.equal(encode(samples, "overlapping")[features.BEFORE : -features.AFTER], encode(samples, "official"))


def test_features_have_no_jump_at_official_cuts() -> None:
    official, ours = steps(procedural_states("official")), steps(procedural_states("overlapping"))
    usual = float(ours[:1000].max())  # inside the first segment
    assert float(official[1499]) > 2 * usual, "the official code jumps, or this test shows nothing"
    assert float(ours.max()) <= usual


def test_features_change_little_at_segment_cuts() -> None:
    """The recording starts 7 s later, so that its cuts move. Positional embeddings change every hidden state a bit."""
    samples, shift = torch.from_numpy(procedural.speech(SECONDS)), 7
    cut = slice((30 - shift) * 50, 30 * 50)  # from the cut of the one recording to that of the other
    excess = {}
    for segments in ("official", "overlapping"):
        later = encode(samples[shift * 16_000 :], segments)
        later = later if segments == "official" else later[features.BEFORE : -features.AFTER]
        change = (procedural_states(segments)[shift * 50 :] - later).flatten(1).norm(dim=1)
        excess[segments] = float(change[cut].max() - change[: cut.start].max())
    assert excess["official"] > 0, "the official cut shows, or this test shows nothing"
    assert excess["overlapping"] <= 0


def test_features_are_silence_outside_the_audio() -> None:
    samples = torch.from_numpy(procedural.speech(3.0))
    states = encode(samples, "overlapping")
    peak = mel.log_peak(mel.mel_power(samples))
    with torch.no_grad():
        silence = tiny_networks.whisper()(mel.log_mel(torch.zeros(1, 80, 3000), peak))[0]
    assert torch.equal(states[:4], silence[:1].expand(4, -1, -1))
    assert torch.equal(states[-5:], silence[150:155])


@pytest.mark.parametrize("segments", ["official", "overlapping"])
def test_features_closed_mouth_changes_only_silence(segments: Segments) -> None:
    samples = torch.from_numpy(procedural.speech(6.0))
    is_closed = np.zeros(300, dtype=bool)
    is_closed[100:160] = True
    closed, plain = encode(samples, segments, is_closed), encode(samples, segments)
    silent = encode(samples, segments, np.ones(300, dtype=bool))
    if segments == "overlapping":
        closed, plain, silent = (states[features.BEFORE : -features.AFTER] for states in (closed, plain, silent))
    assert torch.equal(closed[:100], plain[:100])
    assert torch.equal(closed[160:], plain[160:])
    half = features.FADE_POSITIONS
    torch.testing.assert_close(closed[100 + half : 160 - half], silent[100 + half : 160 - half])
    assert float(steps(closed).max()) < 1.05 * float(torch.stack([steps(plain).max(), steps(silent).max()]).max())


def test_features_of_real_speech_match_recorded(shared: Path) -> None:
    waveform = read_audio(shared / "media" / "demo1_audio.wav")
    with np.load(shared / "golden" / "real" / "audio_demo1.npz") as golden:
        states = tiny_networks.official_states(waveform.samples.mean(dim=0))
        assert len(states) == int(golden["n_features"])
        # recorded with another attention kernel, like the parity cases
        windows = features.frame_windows(states, golden["index"].tolist(), Fraction(25))
        assert tiny_networks.worst(windows, golden["embeddings"]) < 2e-3
