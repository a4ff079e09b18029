"""The sample clip of the demo: a real face under a moving camera, speech-like audio, and face landmarks.

The face is scikit-image's `astronaut` (NASA, public domain). Its mesh points were detected once with MediaPipe and are
stored beside this file. The matrix of the camera moves both the image and the points.

Usage: python -m scripts.sample_clip FOLDER [--seconds 3]
"""

from __future__ import annotations

import argparse
import json
import math
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

FRAME_WIDTH_PX, FRAME_HEIGHT_PX = 480, 640
FRAME_RATE = 25
SAMPLE_RATE = 44_100
VIDEO_SHARE = 2 / 3
"""The video is shorter than the audio, so that the lip-synced video plays it forwards and backwards."""

LANDMARKS = Path(__file__).with_name("astronaut_landmarks.json")

FORMANTS_HZ = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
"""First three resonances of a man's vowels (Peterson and Barney, 1952)."""
FORMANT_BANDWIDTHS_HZ = (80, 100, 140)
SYLLABLES = "a_io_e_ua__ei_o_"
"""One vowel per letter. An underscore is a pause."""
SYLLABLES_PER_SECOND = 4.2

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """The files of one sample. `landmarks` is JSON in the shape of ComfyUI's FACE_LANDMARKS."""

    video: Path
    audio: Path
    landmarks: Path


def make_sample(folder: Path, seconds: float = 3.0) -> Sample:
    """Write the sample into `folder`: sound of `seconds`, video of two thirds of that, landmarks of every frame."""
    folder.mkdir(parents=True, exist_ok=True)
    sample = Sample(*(folder / f"latentsync_sample.{suffix}" for suffix in ("mp4", "wav", "json")))
    cameras = camera_path(round(seconds * VIDEO_SHARE * FRAME_RATE))
    write_video(sample.video, cameras)
    write_audio(sample.audio, speech(seconds))
    sample.landmarks.write_text(json.dumps(face_landmarks(cameras)), encoding="utf-8")
    return sample


def camera_path(frame_count: int) -> FloatArray:
    """(frame_count, 2, 3) matrices from the picture's pixels to the frame's: a slow pan, zoom and roll."""
    return np.stack([camera(index / FRAME_RATE) for index in range(frame_count)])


def camera(time_seconds: float) -> FloatArray:
    """The matrix at one instant. At these amplitudes the frame never leaves the picture."""
    turn = 2 * math.pi * time_seconds
    center = np.array([225 + 8 * math.sin(0.31 * turn), 170 + 6 * math.sin(0.23 * turn + 1.0)])
    scale = 2.25 + 0.12 * math.sin(0.27 * turn + 0.5)
    angle = math.radians(4 * math.sin(0.19 * turn))
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shift = np.array([FRAME_WIDTH_PX / 2, FRAME_HEIGHT_PX / 2]) - linear @ center
    return np.column_stack([linear, shift])


def write_video(path: Path, cameras: FloatArray, rate: Fraction = Fraction(FRAME_RATE)) -> None:
    """Write the picture as each camera sees it: H.264, yuv420p, no sound."""
    import av
    import cv2
    from skimage.data import astronaut

    picture = astronaut()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "16", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = FRAME_WIDTH_PX, FRAME_HEIGHT_PX, "yuv420p"
        for matrix in cameras:
            seen = cv2.warpAffine(picture, matrix, (FRAME_WIDTH_PX, FRAME_HEIGHT_PX), flags=cv2.INTER_LANCZOS4)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format="rgb24")))
        container.mux(stream.encode())


def face_landmarks(cameras: FloatArray) -> dict[str, object]:
    """The astronaut's 478 mesh points in the frame of each camera, as FACE_LANDMARKS."""
    measured = np.array(json.loads(LANDMARKS.read_text(encoding="utf-8"))["landmarks_xy"])
    return {
        "image_size": [FRAME_HEIGHT_PX, FRAME_WIDTH_PX],
        "frames": [[face_entry(measured @ matrix[:, :2].T + matrix[:, 2])] for matrix in cameras],
    }


def face_entry(points: FloatArray) -> dict[str, object]:
    """One face from points (478, 2) in pixels of the frame."""
    return {
        "bbox_xyxy": [*points.min(axis=0).round(2).tolist(), *points.max(axis=0).round(2).tolist()],
        "landmarks_xy": points.round(2).tolist(),
        "score": 1.0,
    }


def speech(seconds: float) -> FloatArray:
    """(samples,) in -1..1: a buzzing voice that speaks SYLLABLES over and over; the same at every call."""
    voice = glottal_buzz(round(seconds * SAMPLE_RATE))
    per_syllable = round(SAMPLE_RATE / SYLLABLES_PER_SECOND)
    starts = range(0, len(voice), per_syllable)
    vowels = [SYLLABLES[index % len(SYLLABLES)] for index in range(len(starts))]
    sound = np.concatenate(
        [syllable(voice[start : start + per_syllable], vowel) for start, vowel in zip(starts, vowels, strict=True)]
    )
    return 0.6 * sound / np.abs(sound).max()


def glottal_buzz(samples: int) -> FloatArray:
    """Pulses at a pitch that wanders around 120 Hz, with a little breath."""
    time_seconds = np.arange(samples) / SAMPLE_RATE
    pitch_hz = 120 + 14 * np.sin(2 * np.pi * 0.7 * time_seconds) + 3 * np.sin(2 * np.pi * 5.1 * time_seconds)
    phase = np.cumsum(pitch_hz) / SAMPLE_RATE % 1.0
    breath = np.random.default_rng(0).normal(0, 0.02, samples)
    return np.where(phase < 0.4, np.sin(np.pi * phase / 0.4) ** 2, 0.0) - 0.2 + breath


def syllable(voice: FloatArray, vowel: str) -> FloatArray:
    """The voice through the resonances of a vowel, opening and closing once, or silence for a pause."""
    from scipy.signal import lfilter

    if vowel not in FORMANTS_HZ:
        return np.zeros_like(voice)
    sound = np.diff(voice, prepend=voice[:1])
    for center_hz, bandwidth_hz in zip(FORMANTS_HZ[vowel], FORMANT_BANDWIDTHS_HZ, strict=True):
        radius = math.exp(-math.pi * bandwidth_hz / SAMPLE_RATE)
        angle = 2 * math.pi * center_hz / SAMPLE_RATE
        resonator = [1.0, -2 * radius * math.cos(angle), radius * radius]
        sound = lfilter([sum(resonator)], resonator, sound)
    return sound * np.sin(np.linspace(0, np.pi, len(voice))) ** 0.7


def write_audio(path: Path, sound: FloatArray) -> None:
    """Write (samples,) in -1..1 as 16-bit mono PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's sample clip.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the sound (default: %(default)s)")
    arguments = parser.parse_args()
    sample = make_sample(arguments.folder, arguments.seconds)
    print(sample.video, sample.audio, sample.landmarks, sep="\n")


if __name__ == "__main__":
    main()
