"""Measure the audio features: seams between Whisper's segments, voice activity in pauses, and hours of audio.

Usage: python -m benchmarks.hearing seams SOUND.wav      (a 5-minute clip of it, shifted by 7 s)
       python -m benchmarks.hearing pauses SOUND.wav ... (pauses of 0.2, 0.5 and 2 s over noise)
       python -m benchmarks.hearing hours 10             (speech-like audio; Linux: memory is read from /proc)

Whisper's weights are untrained. Seams depend on the segments, and hardly on the weights.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import monotonic
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.loading import resident_bytes
from latentsync.audio import features, mel, vad
from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.features import (
    AudioSettings,
    Segments,
    collect_features,
    extract_features,
    num_feature_steps,
)
from latentsync.audio.reader import read_audio
from latentsync.audio.waveform import SAMPLE_RATE, Waveform
from latentsync.weights import random_init
from tests.support import procedural

CLIP_SECONDS, SHIFT_SECONDS, SEGMENT_SECONDS = 300, 7, 30
NEAR_CUT_SECONDS = 1  # on either side of where one segment gives way to the next
PAUSES_SECONDS = (0.2, 0.5, 2.0)
NOISES_DB = (30, 20, 10)  # below the voice
LOUD = 0.1  # of the recording's loudest 10 ms: what must count as speech
TICK = 160  # samples: 10 ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run, help_text in (("seams", seams, "a recording"), ("pauses", pauses, "recordings of speech")):
        command = commands.add_parser(name)
        command.add_argument("sounds", type=Path, nargs="+", help=help_text)
        command.set_defaults(run=run)
    command = commands.add_parser("hours")
    command.add_argument("hours", type=float)
    command.set_defaults(run=hours)
    options = parser.parse_args()
    options.run(options)


def seams(options: argparse.Namespace) -> None:
    """How much a shift changes each hidden state, near the cuts and in the middle; and the steps between neighbors."""
    once = mono(options.sounds[0])
    samples = once.repeat(CLIP_SECONDS * SAMPLE_RATE // len(once) + 1)[: CLIP_SECONDS * SAMPLE_RATE]
    print(
        "| segments | change by the shift: mid-segment | near a cut | step between neighbors: mid-segment | at a cut |"
    )
    print("|---|---|---|---|---|")
    for segments in get_args(Segments):
        here, later = states(samples, segments), states(samples[SHIFT_SECONDS * SAMPLE_RATE :], segments)
        shift = SHIFT_SECONDS * features.STATE_RATE
        moved = size(here[shift:] - later)
        steps = size(here.diff(dim=0))
        cut = near_cuts(len(moved), shift) | near_cuts(len(moved), 0)
        cells = (moved[~cut].max(), moved[cut].max(), *(steps[at].max() for at in (~at_cuts(steps), at_cuts(steps))))
        print(f"| {segments} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")


def states(samples: Tensor, segments: Segments) -> Tensor:
    """(positions, 5, 384), 50 a second, without the silence around the recording."""
    peak = mel.log_peak(mel.mel_power(samples))
    made = torch.cat(list(features.encode_audio(samples, random_init.whisper(), peak, segments)))
    return made if segments == "official" else made[features.BEFORE : -features.AFTER]


def size(differences: Tensor) -> np.ndarray:
    """Of each position's states, the Euclidean length."""
    return differences.flatten(1).norm(dim=1).numpy()


def near_cuts(count: int, shift: int) -> np.ndarray:
    """bool (count,): within a second of a cut, of a recording that begins `shift` positions before."""
    segment, reach = SEGMENT_SECONDS * features.STATE_RATE, NEAR_CUT_SECONDS * features.STATE_RATE
    place = np.arange(count) + shift
    return (place >= segment - reach) & ((place + reach) % segment < 2 * reach)


def at_cuts(steps: np.ndarray) -> np.ndarray:
    """bool: the step from the last position of a segment to the first of the next."""
    return (np.arange(len(steps)) + 1) % (SEGMENT_SECONDS * features.STATE_RATE) == 0


def pauses(options: argparse.Namespace) -> None:
    """How much of an inserted pause counts as silence, and how much of the word after it is lost."""
    defaults = AudioSettings()
    print(f"threshold {defaults.threshold_db} dB, hold {defaults.hangover_s} s\n")
    print(
        "| recording | pause, s | noise, -dB | silence found, % | expected, % | speech found, % | word start lost, ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for path in options.sounds:
        for seconds in PAUSES_SECONDS:
            for decibels in NOISES_DB:
                cells = paused(mono(path), seconds, decibels, defaults)
                print(f"| {path.stem} | {seconds} | {decibels} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")


def paused(voice: Tensor, seconds: float, decibels: int, settings: AudioSettings) -> tuple[float, ...]:
    middle = loud_instant(voice)
    silence = torch.zeros(round(seconds * SAMPLE_RATE))
    clean = torch.cat((voice[:middle], silence, voice[middle:]))
    level = voice.square().mean().sqrt() * 10 ** (-decibels / 20)
    noisy = clean + torch.randn(len(clean), generator=torch.Generator().manual_seed(0)) * level
    spoken = gated(noisy, settings)
    begins, ends = middle // TICK, (middle + len(silence)) // TICK
    pause = spoken[begins:ends]
    owed = max(0, len(pause) - round(100 * settings.hangover_s) - vad.LEAD_MELS) / len(pause)
    loud = loudness(clean)[: len(spoken)] > LOUD
    cut = int(np.argmax(spoken[ends:])) * 10 if spoken[ends:].any() else len(spoken[ends:]) * 10
    return 100 * (1 - pause.mean()), 100 * owed, 100 * spoken[loud].mean(), cut


def loud_instant(voice: Tensor) -> int:
    """A sample in the middle third from which on the voice is loud at once: whatever is cut of it is a word's start."""
    loud = loudness(voice)
    third = len(loud) // 3
    return (third + int(np.argmax(loud[third : 2 * third]))) * TICK


def loudness(samples: Tensor) -> np.ndarray:
    """Of each 10 ms, as a share of the loudest."""
    ticks = samples[: len(samples) // TICK * TICK].view(-1, TICK).square().mean(dim=1).sqrt()
    return (ticks / ticks.max()).numpy()


def gated(samples: Tensor, settings: AudioSettings) -> np.ndarray:
    bands = vad.band_power(mel.mel_power(samples))
    return vad.detect_speech(bands, settings.threshold_db, settings.hangover_s).is_speech


def mono(path: Path) -> Tensor:
    """A recording at 16 kHz."""
    return prepare_driving_audio(read_audio(path)).samples


def hours(options: argparse.Namespace) -> None:
    """Encode this many hours. Anonymous memory: the file of the hidden states does not count."""
    minute = torch.from_numpy(procedural.speech(60.0))
    waveform = Waveform(minute.repeat(round(60 * options.hours))[None], SAMPLE_RATE)
    driving_audio, settings = prepare_driving_audio(waveform), AudioSettings()
    total, encoder = num_feature_steps(driving_audio, settings), random_init.whisper()
    at_first, began = resident_bytes("RssAnon"), monotonic()
    print("| done | seconds | memory beyond the recording, MB |\n|---|---|---|")

    def steps() -> object:
        for number, step in enumerate(extract_features(driving_audio, encoder, settings), start=1):
            yield step
            if number % max(total // 10, 1) == 0:
                grown = (resident_bytes("RssAnon") - at_first) / 1e6
                print(f"| {number / total:.0%} of the steps | {monotonic() - began:.0f} | {grown:.0f} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        features, _ = collect_features(steps(), driving_audio, settings, Path(folder))
    took = monotonic() - began
    lasts = float(waveform.duration_seconds)
    print(
        f"\n{len(features.hidden_states)} positions; {took:.0f} s for {lasts:.0f} s of audio: "
        f"{lasts / took:.1f} x real time"
    )


if __name__ == "__main__":
    main()
