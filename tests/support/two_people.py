"""A clip of two people side by side, with their landmarks: the astronaut of the sample, twice, the second in blue."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from latentsync.audio.waveform import Waveform
from latentsync.faces.mediapipe_detector import LIPS
from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import (
    FRAME_HEIGHT_PX,
    FRAME_RATE,
    FRAME_WIDTH_PX,
    Sample,
    camera_path,
    face_entry,
    face_landmarks,
    write_video,
)
from tests.support.talking import moved_right

TALKING_FRAMES, SAMPLE_RATE = 75, 16_000
LEFT_NOSE = (120, 150)
"""A point on the face of the person on the left of `write_talking_pair`."""


def write_two_people(sample: Sample, folder: Path) -> tuple[Path, Path]:
    """Write the video and its FACE_LANDMARKS. The person on the right has red and blue exchanged."""
    source = VideoFile(sample.video)
    video, landmarks = folder / "two_people.mp4", folder / "two_people.json"
    with VideoWriter(video, rate=source.rate, height=source.height, width=2 * FRAME_WIDTH_PX) as writer:
        for frame in source.read(range(source.frame_count)):
            writer.write(np.hstack([frame, frame[..., ::-1]]))
    stored = json.loads(sample.landmarks.read_text(encoding="utf-8"))
    stored["image_size"][1] *= 2
    for faces in stored["frames"]:
        faces.append(moved_right(faces[0], FRAME_WIDTH_PX))
    landmarks.write_text(json.dumps(stored), encoding="utf-8")
    return video, landmarks


def write_talking_pair(folder: Path) -> tuple[Path, Path]:
    """Write a video of half the size, and its FACE_LANDMARKS: both mouths move, but not together.

    The sound of the video is as loud as the mouth of the person on the right is open.
    """
    cameras = camera_path(TALKING_FRAMES)
    small, video, landmarks = (folder / f"talking_{name}" for name in ("one.mp4", "pair.mp4", "pair.json"))
    write_video(small, cameras)
    random = np.random.default_rng(1)
    openings = np.array([np.convolve(random.random(TALKING_FRAMES), np.ones(3) / 3, "same") for _ in range(2)])
    noise = random.uniform(-1, 1, TALKING_FRAMES * SAMPLE_RATE // FRAME_RATE)
    sound = torch.from_numpy(np.repeat(openings[1], SAMPLE_RATE // FRAME_RATE) * noise).float()[None]
    size = {"height": FRAME_HEIGHT_PX // 2, "width": FRAME_WIDTH_PX}
    with VideoWriter(video, rate=Fraction(FRAME_RATE), waveform=Waveform(sound, SAMPLE_RATE), **size) as writer:
        for frame in VideoFile(small).read(range(TALKING_FRAMES)):
            writer.write(np.hstack([frame[::2, ::2], frame[::2, ::2, ::-1]]))
    upper, lower, *_ = LIPS
    faces = []
    for (face,), both in zip(face_landmarks(cameras)["frames"], 0.3 * openings.T, strict=True):
        meshes = [np.array(face["landmarks_xy"]) / 2 for _ in both]
        for mesh, opening in zip(meshes, both, strict=True):
            mesh[lower] = mesh[upper] + [0, opening * np.linalg.norm(mesh[LIPS[2]] - mesh[LIPS[3]])]
        left, right = map(face_entry, meshes)
        faces.append([left, moved_right(right, FRAME_WIDTH_PX // 2)])
    stored = {"image_size": [size["height"], size["width"]], "frames": faces}
    landmarks.write_text(json.dumps(stored), encoding="utf-8")
    return video, landmarks
