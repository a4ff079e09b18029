"""Voice activity detection of voices over noise, music and tones."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.audio import mel, vad, waveform
from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.reader import read_audio
from latentsync.audio.waveform import Waveform
from tests.support import procedural, tiny_networks

RATE = waveform.SAMPLE_RATE
THRESHOLD_DB, HANGOVER_S = 4.0, 0.2


def is_speech(samples: Tensor, hangover_s: float = HANGOVER_S, threshold_db: float = THRESHOLD_DB) -> np.ndarray:
    return vad.detect_speech(vad.band_power(mel.mel_power(samples)), threshold_db, hangover_s).is_speech


def words(*seconds: tuple[float, float], lasting: float) -> Tensor:
    """Speech-like audio between pairs of instants, and digital silence elsewhere."""
    samples = torch.zeros(round(lasting * RATE))
    for first, end in seconds:
        at = slice(round(first * RATE), round(end * RATE))
        samples[at] = torch.from_numpy(procedural.speech(end - first + 0.1))[: at.stop - at.start]
    return samples


def beneath(voice: Tensor, background: Tensor, decibels: float) -> Tensor:
    """A voice over a background that is `decibels` below its level where it speaks."""
    level = voice[voice.abs() > 1e-3].square().mean().sqrt()
    return voice + background * (level / background.square().mean().sqrt() * 10 ** (-decibels / 20))


def chords(count: int) -> Tensor:
    """Chords of three notes with overtones, two per second."""
    t = torch.arange(count, dtype=torch.float64) / RATE
    struck = torch.exp(-2 * (t % 0.5))
    third = 1 + (t // 2) % 4 / 8
    notes = [root * overtone for root in (165.0, 208.0, 247.0) for overtone in (1, 2, 3, 4)]
    return (struck * sum(torch.sin(2 * torch.pi * note * third * t) / note for note in notes)).float()


def hum(count: int) -> Tensor:
    t = torch.arange(count, dtype=torch.float64) / RATE
    return sum(torch.sin(2 * torch.pi * hertz * t) for hertz in (50, 150, 440, 880, 1320)).float()  # type: ignore[union-attr]


def share(gate: np.ndarray, first: float, end: float) -> float:
    return float(gate[round(first * 100) : round(end * 100)].mean())


BACKGROUNDS = {"white noise": lambda count: tiny_networks.normal(1, count), "chords": chords, "hum": hum}


@pytest.mark.parametrize("decibels", [30, 20, 10])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_vad_follows_the_voice(background: str, decibels: int) -> None:
    if (background, decibels) == ("chords", 10):
        pytest.skip("chords nearly as loud as the voice count as speech: use vocals")
    voice = words((1, 3), (5, 6.5), (8.5, 10), lasting=12)
    gate = is_speech(beneath(voice, BACKGROUNDS[background](len(voice)), decibels))
    for first, end in ((1, 3), (5, 6.5), (8.5, 10)):
        assert share(gate, first, end - 0.1) == 1
    for first, end in ((3.4, 4.8), (6.9, 8.3), (10.4, 12)):
        assert share(gate, first, end) == 0


def test_vad_opens_early_and_holds() -> None:
    gate = is_speech(words((2, 3), (5, 6), lasting=8), hangover_s=0.2)
    opened, closed = np.flatnonzero(np.diff(gate.astype(int), prepend=0, append=0)).reshape(-1, 2)[0]
    assert 2.0 - 0.16 <= opened / 100 <= 2.0 - 0.08, "120 ms before, measured over 50 ms"
    assert closed / 100 >= 3.0 + 0.1


@pytest.mark.parametrize(("hangover_s", "runs"), [(0.1, 2), (0.6, 1)])
def test_vad_keeps_pauses_shorter_than_hold(hangover_s: float, runs: int) -> None:
    gate = is_speech(words((1, 2), (2.5, 4), lasting=6), hangover_s)
    assert np.count_nonzero(np.diff(gate[:450].astype(int), prepend=0) == 1) == runs


def test_vad_higher_threshold_detects_less() -> None:
    voice = words((1, 3), lasting=6)
    samples = beneath(voice, tiny_networks.normal(2, len(voice)), 6)
    shares = [is_speech(samples, threshold_db=threshold).mean() for threshold in (2.0, 6.0, 20.0)]
    assert shares[0] > shares[1] > shares[2] == 0


def test_vad_stays_open_at_a_lower_level() -> None:
    level = torch.tensor([0.0, 3.0, 5.0, 3.0, 2.0, 3.0, 0.0]).repeat_interleave(50)
    gate = vad.threshold(level, 4.0, 0.0).is_speech
    assert np.flatnonzero(gate).tolist() == list(range(50 - vad.LEAD_MELS, 200))


def test_vad_ignores_digital_silence_as_noise_floor() -> None:
    voice = words((1, 3), (10, 12), lasting=20)
    samples = beneath(voice, tiny_networks.normal(3, len(voice)), 15)
    samples[5 * RATE : 6 * RATE] = 0
    gate = is_speech(samples)
    assert share(gate, 6.2, 9.5) == 0, "noise after a second of digital silence is still noise"


def test_vad_noise_floor_follows_the_background() -> None:
    """Per second: the power that returns within 15 s, and at least 22 dB below the loud parts."""
    power = torch.full((70 * 100 + 30,), 1e-4)
    power[40 * 100 :] = 1e-2
    power[::50] = 1e-1
    floor = vad.noise_floor(power)
    assert floor.shape == (71,)
    torch.testing.assert_close(floor[:30], torch.full((30,), 1e-1 / 10**2.2))
    torch.testing.assert_close(floor[60:], torch.full((11,), 1e-2))


def test_vad_finds_no_speech_in_noise() -> None:
    assert not is_speech(tiny_networks.normal(5, 10 * RATE)).any()


@pytest.mark.parametrize("clip", ["demo1", "demo2", "demo3"])
def test_vad_finds_speech_in_real_recordings(shared: Path, clip: str) -> None:
    waveform = read_audio(shared / "media" / f"{clip}_audio.wav")
    gate = is_speech(waveform.samples.mean(dim=0))
    loud = waveform.samples[0, : len(gate) * 160].view(-1, 160).square().mean(dim=1).sqrt() > 0.05
    assert gate[loud.numpy()].mean() > 0.98, "all but a click, a breath, the end of a fading vowel"
    assert gate.mean() > 0.7


@pytest.fixture(scope="session")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Waveform:
    """A synthetic voice: three phrases, each followed by a second of silence."""
    speaker = shutil.which("espeak-ng")
    if speaker is None:
        pytest.skip("needs espeak-ng (a Debian package) for a voice")
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    phrases = ("Good morning everybody", "this is a song about the sea", "and here it ends")
    text = "".join(f'{phrase}<break time="1s"/>' for phrase in phrases)
    subprocess.run([speaker, "-m", "-w", str(path), f"<speak>{text}</speak>"], check=True, timeout=60)
    return read_audio(path)


def test_vad_follows_vocals_over_music(sentence: Waveform) -> None:
    """The music is louder than the voice, but only the vocals drive the lips."""
    bed = chords(int(sentence.duration_seconds * RATE)) * 5
    mixed = Waveform(bed[None].expand(2, -1) + 0.1, RATE)
    mixed = Waveform(mixed.samples / mixed.samples.abs().max(), RATE)
    driven = prepare_driving_audio(mixed, sentence, Fraction(0)).samples
    gate = is_speech(driven)
    loud = driven[: len(gate) * 160].view(-1, 160).square().mean(dim=1).sqrt().numpy() > 0.02
    assert gate[loud].all(), "every sounding part of the voice is speech"
    silent = ~loud
    for around in range(1, 45):  # hold time, lead time, a decay and a mel frame
        silent[around:] &= ~loud[:-around]
        silent[:-around] &= ~loud[around:]
    assert silent.sum() > 80, "the pauses between the phrases"
    assert not gate[silent].any()
    alone = is_speech(prepare_driving_audio(mixed).samples)
    assert (alone[: len(gate)] == gate).mean() < 0.9, "without vocals the music counts"
