"""Speech-like audio for training, and the mouth movements for it.

Half of the voices are procedural: a buzz filtered by the resonances of random vowels. espeak-ng reads the others.
"""

from __future__ import annotations

import io
import math
import subprocess
import wave
from collections.abc import Iterator

import numpy as np
from scipy.signal import butter, lfilter, resample_poly, sosfilt

from scripts.sample_clip import FORMANT_BANDWIDTHS_HZ, FORMANTS_HZ

SAMPLE_RATE = 16_000
SEGMENT_SECONDS = 30
LEVEL_RATE = 100  # values of level and brightness a second
LEVEL_WINDOW_SECONDS = 0.12

# levels in dB relative to full scale: the mouth begins to open, and is wide open
CLOSED_DB, OPEN_DB = -42.0, -13.0
# spectral centroids in Hz: the lips are rounded, and are spread
ROUND_HZ, SPREAD_HZ = 450.0, 1500.0
ROUNDED, SPREAD = -0.22, 0.1

ESPEAK_VOICES = (
    "en-us",
    "en-gb+f3",
    "de+m2",
    "fr+f2",
    "es",
    "it+f4",
    "pt-br+m4",
    "nl",
    "sv+f1",
    "pl+m3",
    "ru",
    "tr+f5",
)
SENTENCES = (
    "The boat leaves early in the morning, so we should pack our bags tonight.",
    "My sister bought four red apples, a loaf of bread and two bottles of milk.",
    "Nobody knows how the old clock on the tower still keeps the time.",
    "When the rain stopped, the whole street smelled of wet leaves and coffee.",
    "Please open the window a little, and tell me what you see outside.",
    "A small plane flew over the lake and vanished behind the blue hills.",
    "We counted seven swans, nine ducks and one very angry goose.",
    "Oh, who would have thought that you could move so much furniture alone?",
)


def segments(count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`count` recordings of up to 30 s: phrases of several voices with pauses between them. float32, -1..1."""
    for _ in range(count):
        seconds, parts = rng.uniform(3, SEGMENT_SECONDS), []
        while sum(map(len, parts)) < seconds * SAMPLE_RATE:
            phrase = espeak_phrase(rng) if rng.random() < 0.5 else buzz_phrase(rng)
            gain = 10 ** (-rng.uniform(1, 14) / 20) / max(float(np.abs(phrase).max()), 1e-3)
            parts += [gain * phrase, np.zeros(round(rng.uniform(0.1, 1.2) * SAMPLE_RATE))]
        sound = np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]
        hiss = rng.choice([0.0, 10 ** (-rng.uniform(55, 75) / 20)])
        yield (sound + hiss * rng.standard_normal(len(sound))).clip(-1, 1).astype(np.float32)


def espeak_phrase(rng: np.random.Generator) -> np.ndarray:
    """A sentence with a random voice of espeak-ng."""
    command = ["espeak-ng", "--stdout", "-v", str(rng.choice(ESPEAK_VOICES))]
    command += ["-s", str(rng.integers(120, 210)), "-p", str(rng.integers(20, 80)), str(rng.choice(SENTENCES))]
    with wave.open(io.BytesIO(subprocess.run(command, check=True, capture_output=True).stdout)) as file:
        rate = file.getframerate()
        # the header of a stream has no length
        samples = np.frombuffer(file.readframes(2**28), "<i2") / 32768
    return resample_poly(samples, SAMPLE_RATE, rate)


def buzz_phrase(rng: np.random.Generator) -> np.ndarray:
    """One to four seconds of syllables: a buzz filtered by the resonances of vowels, and hiss for consonants."""
    pitch_hz, size, pace = rng.uniform(85, 260), rng.uniform(0.9, 1.25), rng.uniform(2.2, 6.0)
    count = max(2, round(rng.uniform(1, 4) * pace))
    return np.concatenate([syllable(pitch_hz, size, 1 / pace * rng.uniform(0.7, 1.4), rng) for _ in range(count)])


def syllable(pitch_hz: float, size: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """One vowel that fades in and out, sometimes after a consonant of hiss.

    size: factor for the resonances of a man's mouth.
    """
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    drift = 1 + rng.uniform(-0.1, 0.1) * time / seconds + 0.03 * np.sin(2 * math.pi * rng.uniform(3, 6) * time)
    phase = np.cumsum(pitch_hz * drift) / SAMPLE_RATE % 1.0
    voice = np.diff(np.where(phase < 0.4, np.sin(math.pi * phase / 0.4) ** 2, 0.0), prepend=0.0)
    voice += 0.01 * rng.standard_normal(len(time))
    vowel = FORMANTS_HZ[str(rng.choice(list(FORMANTS_HZ)))]
    for center_hz, bandwidth_hz in zip(vowel, FORMANT_BANDWIDTHS_HZ, strict=True):
        radius = math.exp(-math.pi * bandwidth_hz / SAMPLE_RATE)
        angle = 2 * math.pi * min(center_hz * size, 7000) / SAMPLE_RATE
        resonator = [1.0, -2 * radius * math.cos(angle), radius * radius]
        voice = lfilter([sum(resonator)], resonator, voice)
    voice *= np.sin(np.linspace(0, math.pi, len(voice))) ** rng.uniform(0.5, 1.2) / max(np.abs(voice).max(), 1e-6)
    voice *= rng.uniform(0.25, 1.0)
    if rng.random() < 0.5:
        return voice
    hiss = sosfilt(
        butter(2, rng.uniform(2000, 5000), "high", fs=SAMPLE_RATE, output="sos"),
        rng.standard_normal(round(rng.uniform(0.04, 0.12) * SAMPLE_RATE)),
    )
    return np.concatenate([0.08 * hiss * np.hanning(len(hiss)), voice])


def mouth(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mouth movements for a recording: opening (0 to 1) and spread, 100 values a second.

    Args:
        sound: (samples,) at 16 kHz.
    """
    size = round(LEVEL_WINDOW_SECONDS * SAMPLE_RATE)
    hop = SAMPLE_RATE // LEVEL_RATE
    padded = np.pad(sound, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 / (size * np.square(np.hanning(size)).sum())
    frequency_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    level_db = 10 * np.log10(2 * power.sum(axis=1) + 1e-10)
    opening = ((level_db - CLOSED_DB) / (OPEN_DB - CLOSED_DB)).clip(0, 1)
    voiced = power * ((frequency_hz > 150) & (frequency_hz < 4000))
    centroid_hz = (voiced @ frequency_hz + 1e-9) / (voiced.sum(axis=1) + 1e-12)
    brightness = np.log(centroid_hz.clip(ROUND_HZ, SPREAD_HZ) / ROUND_HZ) / math.log(SPREAD_HZ / ROUND_HZ)
    return opening, (ROUNDED + (SPREAD - ROUNDED) * brightness) * opening.clip(0, 0.5) * 2
