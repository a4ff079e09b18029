"""Lip sync of a clip whose frames show their numbers and whose audio has clicks, with networks that do nothing.

Only time is tested: reading, timeline, sampling loop, compositing and writing are the library's own.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from benchmarks.stand_in_nodes.networks import Deaf
from latentsync.audio.features import AudioFeatures
from latentsync.audio.reader import read_audio
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.models.constants import AUDIO_STATES, AUDIO_WIDTH
from latentsync.output.video_writer import VideoWriter
from latentsync.sampling import sampler
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import LengthMode, build_timeline, output_rate
from latentsync.video.video_file import VideoFile
from tests.support.numbered_clip import BAR_PX

SIDE = 64  # of the crop in pixels
BITS = 16  # of the frame number: ten minutes have 17,982 frames at 29.97
HEIGHT, WIDTH = 64, BITS * BAR_PX
HERTZ = 16_000
CLICK_EVERY_SECONDS = 7
TICK_SECONDS = Fraction(1, 1000)  # timestamps may be rounded to it, and one tick is forgiven
FACE_EVERY, FACE_FRAMES = 500, 20  # the face comes and goes, so that frames with and without it are in the clip
FACE = np.array([[60.0, 40], [68, 40], [64, 46]])  # below the pattern


class Codec:
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 4, SIDE // 8, SIDE // 8)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(latents), 3, SIDE, SIDE)


def numbered(number: int) -> np.ndarray:
    """The number in binary as black and white bars in the upper third."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    bits = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8)
    picture[: HEIGHT // 3] = np.repeat(bits * 255, BAR_PX)[:, None]
    return picture


def number_of(picture: np.ndarray) -> int:
    row = picture[: HEIGHT // 4].mean(axis=(0, 2)).reshape(BITS, BAR_PX)[:, 2:-2].mean(axis=1)
    return sum(int(level > 128) << bit for bit, level in enumerate(row))


def clip(path: Path, rate: Fraction, seconds: int) -> VideoFile:
    with VideoWriter(path, rate=rate, height=HEIGHT, width=WIDTH, crf=23) as writer:
        for number in range(int(seconds * rate)):
            writer.write(numbered(number))
    return VideoFile(path)


def clicks(seconds: int) -> Waveform:
    samples = torch.zeros(1, seconds * HERTZ)
    samples[0, :: CLICK_EVERY_SECONDS * HERTZ] = 0.9
    return Waveform(samples, HERTZ)


def synced(source: VideoFile, sound: Waveform, length: LengthMode, path: Path) -> list[int]:
    """Lip-sync a clip without networks; returns the expected source frame of each output frame."""
    points = np.full((source.frame_count, 3, 2), np.nan)
    points[np.arange(source.frame_count) % FACE_EVERY < FACE_FRAMES] = FACE
    track = FaceTrack(source, points)
    timeline = build_timeline(source, sound.duration_seconds, output_rate(source.rate), length)
    features = AudioFeatures(torch.zeros(int(sound.duration_seconds * 50), AUDIO_STATES, AUDIO_WIDTH), sound)
    samples = sampler.sample_windows(
        Deaf(),
        Codec(),
        track,
        features,
        timeline,
        SamplerSettings(num_inference_steps=1, guidance_scale=1),
        SIDE,
    )
    lips = sampler.build_lip_track(samples, track, timeline, sound, Codec(), path.parent)
    with VideoWriter(path, rate=timeline.rate, height=HEIGHT, width=WIDTH, crf=23, waveform=lips.waveform) as writer:
        for made in composite([lips], BlendSettings()):
            writer.write(made.frame)
    return list(timeline.source_index)


def check_file(path: Path, expected: list[int], rate: Fraction, sound_seconds: int) -> None:
    made, heard = VideoFile(path), read_audio(path)
    assert (made.rate, made.frame_count) == (rate, len(expected))
    assert [number_of(frame) for frame in made.read(range(made.frame_count))] == expected
    assert abs(heard.duration_seconds - made.duration_seconds) < 2 * Fraction(1024, HERTZ), "AAC's frames, at its ends"
    lasts = min(Fraction(sound_seconds), made.duration_seconds)
    meant = [at for at in range(0, sound_seconds, CLICK_EVERY_SECONDS) if at < lasts - 1]
    samples = heard.samples[0]
    for at in meant:
        first = max(at * HERTZ - HERTZ, 0)
        found = first + int(samples[first : at * HERTZ + HERTZ].abs().argmax())
        assert abs(Fraction(found, HERTZ) - at) < 1 / rate


def check_stretched(shown: list[int], source: VideoFile, audio_seconds: int) -> None:
    """Each output frame shows the moment of the source that belongs to its place in the audio, to half a frame."""
    rate = output_rate(source.rate)
    assert len(shown) == round(audio_seconds * rate)
    last = source.frame_count - 1
    for i, frame in enumerate(shown):
        place = i / rate * source.duration_seconds / audio_seconds
        assert abs(frame - place * source.rate) <= Fraction(1, 2) or (frame == last and place * source.rate > last)


def check_sync(source: VideoFile, audio_seconds: int, length: LengthMode, path: Path) -> None:
    """Lip-sync a clip that is shorter than its audio; every frame and every click must be at its place."""
    expected = synced(source, clicks(audio_seconds), length, path)
    if length == "audio (stretch video)":
        check_stretched(expected, source, audio_seconds)
        check_file(path, expected, source.rate, audio_seconds)
        return
    once = range(source.frame_count)
    meant = {
        "audio (ping-pong)": [*once, *reversed(once)],
        "audio (loop)": [*once, *once],
        "audio (hold last frame)": [*once, *[once[-1]] * len(once)],
    }.get(length, once)
    assert expected == list(meant)[: len(expected)]
    check_file(path, expected, source.rate, audio_seconds)
