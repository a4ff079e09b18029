"""Whisper features: equal to the official code away from its segment cuts, and the window of each frame."""

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
def states(segments: Segments) -> Tensor:
    """The features of a recording with a cut in it, without the silence around it."""
    made = embedded(torch.from_numpy(procedural.speech(SECONDS)), segments)
    return made if segments == "upstream" else made[features.BEFORE : -features.AFTER]


def embedded(samples: Tensor, segments: Segments, closed: np.ndarray | None = None) -> Tensor:
    power = torch.cat(list(mel.mel_power([samples])), dim=1)
    return torch.cat(
        list(features.encode_audio([power], tiny_networks.whisper(), mel.log_peak(power), segments, closed))
    )


def steps(given: Tensor) -> Tensor:
    """The distance of each hidden state from the one before."""
    return given.diff(dim=0).flatten(1).norm(dim=1)


def test_frame_windows_center_on_the_frame() -> None:
    given = torch.arange(40.0)[:, None, None].expand(-1, 5, 384)
    heard = features.frame_windows(given, range(20), Fraction(25))
    assert heard.shape == (20, 50, 384)
    positions = heard[:, ::5, 0].int().tolist()
    assert positions[10] == list(range(16, 26))
    assert positions[0] == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert positions[19] == [34, 35, 36, 37, 38, 39, 39, 39, 39, 39]


def test_frame_windows_reach_before_the_clip() -> None:
    given = torch.arange(-4.0, 36.0)[:, None, None].expand(-1, 5, 384)
    heard = features.frame_windows(given, [0, 1, 10], Fraction(25), first=-4)[:, ::5, 0].int()
    assert heard.tolist() == [list(range(-4, 6)), list(range(-2, 8)), list(range(16, 26))]


def test_frame_windows_keep_layers_together() -> None:
    given = torch.arange(200.0).view(40, 5)[:, :, None].expand(-1, -1, 384)
    assert features.frame_windows(given, [10], Fraction(25))[0, :, 0].tolist() == list(range(80, 130))


def test_frame_windows_round_down_at_fractional_fps() -> None:
    given = torch.arange(200.0)[:, None, None].expand(-1, 5, 384)
    heard = features.frame_windows(given, [30], Fraction(30_000, 1001))  # 1.001 s: position 50.05
    assert int(heard[0, 20, 0]) == 50


@pytest.mark.parametrize("segments", ["upstream", "overlapping"])
@pytest.mark.parametrize("seconds", [0.04, 29.99, 30.0, 30.02, 45.01, 60.0])
def test_features_have_fifty_positions_per_second(seconds: float, segments: Segments) -> None:
    samples = torch.from_numpy(procedural.speech(seconds))
    power = torch.cat(list(mel.mel_power([samples])), dim=1)

    def counted(given: Tensor) -> Tensor:
        return torch.zeros(1, given.shape[2] // 2, 5, 384)

    counted.parameters = lambda: iter([torch.zeros(1)])  # type: ignore[attr-defined]
    pieces = list(features.encode_audio([power], counted, mel.log_peak(power), segments))  # type: ignore[arg-type]
    margin = features.BEFORE + features.AFTER if segments == "overlapping" else 0
    assert sum(map(len, pieces)) == len(samples) // 320 + margin
    assert len(pieces) == features.segment_count(len(samples), segments)


def test_features_match_official_away_from_cuts() -> None:
    upstream, ours = states("upstream"), states("overlapping")
    assert len(ours) == len(upstream) == 2600
    for first, end in ((0, 20), (40, 52)):
        assert torch.equal(ours[first * 50 : end * 50], upstream[first * 50 : end * 50])


def test_features_of_short_audio_match_official() -> None:
    samples = torch.from_numpy(procedural.speech(9.0))
    assert torch.equal(
        embedded(samples, "overlapping")[features.BEFORE : -features.AFTER], embedded(samples, "upstream")
    )


def test_features_have_no_jump_at_official_cuts() -> None:
    upstream, ours = steps(states("upstream")), steps(states("overlapping"))
    usual = float(ours[:1000].max())  # inside the first segment
    assert float(upstream[1499]) > 2 * usual, "upstream jumps, or this test shows nothing"
    assert float(ours.max()) <= usual


def test_features_change_little_at_segment_cuts() -> None:
    """Seven seconds later, the cuts are elsewhere. Positional encoding moves every state a little."""
    samples, shift = torch.from_numpy(procedural.speech(SECONDS)), 7
    cut = slice((30 - shift) * 50, 30 * 50)  # between the cuts of the one and of the other
    beyond = {}
    for segments in ("upstream", "overlapping"):
        later = embedded(samples[shift * 16_000 :], segments)
        later = later if segments == "upstream" else later[features.BEFORE : -features.AFTER]
        change = (states(segments)[shift * 50 :] - later).flatten(1).norm(dim=1)
        beyond[segments] = float(change[cut].max() - change[: cut.start].max())
    assert beyond["upstream"] > 0, "upstream's cut shows, or this test shows nothing"
    assert beyond["overlapping"] <= 0


def test_features_are_silence_outside_the_audio() -> None:
    samples = torch.from_numpy(procedural.speech(3.0))
    made = embedded(samples, "overlapping")
    power = torch.cat(list(mel.mel_power([samples])), dim=1)
    with torch.no_grad():
        silence = tiny_networks.whisper()(mel.log_mel(torch.zeros(1, 80, 3000), mel.log_peak(power)))[0]
    assert torch.equal(made[:4], silence[:1].expand(4, -1, -1))
    assert torch.equal(made[-5:], silence[150:155])


@pytest.mark.parametrize("segments", ["upstream", "overlapping"])
def test_features_closed_mouth_changes_only_silence(segments: Segments) -> None:
    samples = torch.from_numpy(procedural.speech(6.0))
    closed = np.zeros(300, dtype=bool)
    closed[100:160] = True
    made, plain = embedded(samples, segments, closed), embedded(samples, segments)
    silent = embedded(samples, segments, np.ones(300, dtype=bool))
    if segments == "overlapping":
        made, plain, silent = (given[features.BEFORE : -features.AFTER] for given in (made, plain, silent))
    assert torch.equal(made[:100], plain[:100])
    assert torch.equal(made[160:], plain[160:])
    half = features.CLOSING_POSITIONS
    torch.testing.assert_close(made[100 + half : 160 - half], silent[100 + half : 160 - half])
    assert float(steps(made).max()) < 1.05 * float(torch.stack([steps(plain).max(), steps(silent).max()]).max())


def test_features_of_real_speech_match_recorded(shared: Path) -> None:
    waveform = read_audio(shared / "media" / "demo1_audio.wav")
    with np.load(shared / "golden" / "real" / "audio_demo1.npz") as golden:
        made = tiny_networks.upstream_states(waveform.samples.mean(dim=0))
        assert len(made) == int(golden["n_features"])
        # recorded after another attention kernel: as the case in tests/golden
        given = features.frame_windows(made, golden["index"].tolist(), Fraction(25))
        assert tiny_networks.worst(given, golden["embeddings"]) < 2e-3
