"""A clip of two people side by side, with their landmarks: the astronaut of the sample, twice, the second in blue."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import FRAME_WIDTH_PX, Sample
from tests.support.talking import moved_right


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
