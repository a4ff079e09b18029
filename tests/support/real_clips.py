"""Checks on real footage, which some tests run on short parts and others on whole clips."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path

import cv2
import numpy as np
import pytest

from latentsync import score_video
from latentsync.audio.reader import read_audio
from latentsync.cli.main import main
from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from tests.support.heads import found
from tests.support.synthetic_models import write_syncnet


class Quarter:
    """A video that is scaled down while it is read."""

    def __init__(self, whole: VideoFile) -> None:
        self.whole = whole
        self.name, self.rate, self.frame_count = whole.name, whole.rate, whole.frame_count
        self.height, self.width, self.pixel_aspect = whole.height // 4, whole.width // 4, whole.pixel_aspect

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        for frame in self.whole.read(indices):
            yield cv2.resize(frame, (self.width, self.height), interpolation=cv2.INTER_AREA)


def check_one_person(shared: Path, detector: MediaPipeDetector, clip: str, small: bool) -> None:
    """Every frame of a clip has the same one person, at full size or at a quarter of it."""
    whole = VideoFile(shared / f"media/{clip}_video.mp4")
    people = found(Quarter(whole) if small else whole, detector)
    assert [person.frames.tolist() for person in people.members] == [list(range(whole.frame_count))]
    assert people.cuts == ()


def check_run(shared: Path, folder: Path, clip: str, seconds: float, *, trim: bool = False) -> None:
    """Lip-sync a clip to the start of its recording. Far from the face, frames equal the source up to the codec.

    `trim` first writes the start of the clip to a file. The face is then not searched in the whole clip.
    """
    models = folder / "models" / "latentsync"
    models.mkdir(parents=True)
    (models / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    video, audio = shared / "media" / f"{clip}_video.mp4", folder / "speech.wav"
    with wave.open(str(shared / "media" / f"{clip}_audio.wav")) as given, wave.open(str(audio), "wb") as part:
        part.setparams(given.getparams())
        part.writeframes(given.readframes(round(seconds * given.getframerate())))
    if trim:
        video = write_start(video, folder / "start.mp4", Fraction(seconds))
    output = folder / "out.mp4"
    arguments = ["run", video, audio, "-o", output, "--miniature", "--steps", 1, "--cfg", 1, "--no-save-record"]
    assert main([*map(str, arguments), "--models", str(models.parent)]) == 0
    made, source = VideoFile(output), VideoFile(video)
    frames = ceil(seconds * source.rate)
    assert (made.width, made.height, made.rate, made.frame_count) == (1080, 1920, source.rate, frames)
    assert read_audio(output).duration_seconds == pytest.approx(seconds, abs=0.03)
    for at in (0, frames - 1):
        (frame,), (original,) = made.read([at]), source.read([at])
        edges = np.abs(frame.astype(int) - original.astype(int))[-200:]
        assert edges.mean() < 3, "the bottom of the picture is far from the face"


def write_start(video: Path, path: Path, seconds: Fraction) -> Path:
    """Encode the first seconds of a video."""
    start = VideoFile(video, duration_seconds=seconds)
    with VideoWriter(path, rate=start.rate, height=start.height, width=start.width, crf=10) as writer:
        for frame in start.read(range(start.frame_count)):
            writer.write(frame)
    return path


def check_score(shared: Path, folder: Path, clip: str, frames: int) -> None:
    """Score a real face with its own sound, by untrained weights. `frames` have both picture and sound."""
    write_syncnet(folder)
    (folder / "latentsync" / "face_landmarker.task").symlink_to(shared / "models" / "face_landmarker.task")
    result = score_video(shared / "media" / f"{clip}_video.mp4", models_dir=folder, face="largest")
    assert result.sync is not None
    assert result.sync.window_count == frames - 5
    assert result.lip_leak is not None
    assert result.lip_leak.silent_frames > 0
