"""Seconds that a score takes for each second of video, by stage, and the peak memory. SyncNet is untrained.

Usage: python -m benchmarks.score VIDEO --model face_landmarker.task [--seconds 10] [--no-faces]

Each stage runs alone. With --no-faces, a box in the middle of the picture stands for the face: use it to measure the
memory of long clips, as detection takes most of the time.
"""

from __future__ import annotations

import argparse
import resource
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from latentsync.audio.waveform import SAMPLE_RATE, Waveform
from latentsync.faces.face_track import FaceTrack, build_face_track
from latentsync.faces.identities import cluster_tracks, select
from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.faces.tracker import track_faces
from latentsync.scoring.crops import cut, squares
from latentsync.scoring.score import score_track
from latentsync.video.video_file import VideoFile
from tests.support.tiny_networks import syncnet


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the time and the memory of a score.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", type=Path, help="face_landmarker.task")
    parser.add_argument("--seconds", type=float, default=10, help="of the video; all of it if it is shorter")
    parser.add_argument("--no-faces", action="store_true")
    arguments = parser.parse_args()
    source = VideoFile(arguments.video, duration_seconds=Fraction(arguments.seconds))
    seconds, stages = float(source.duration_seconds), dict[str, float]()
    noise = torch.randn(1, round(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(0))
    network = syncnet()

    began = time.perf_counter()
    for _ in source.read(range(source.frame_count)):
        pass
    stages["decode"] = time.perf_counter() - began

    began = time.perf_counter()
    track = stand_in(source) if arguments.no_faces else tracked(source, arguments.model)
    stages["detect and track, decoding included"] = time.perf_counter() - began

    assert track.boxes is not None
    places = squares(track.boxes)
    began = time.perf_counter()
    for frame, place in zip(source.read(range(source.frame_count)), places, strict=True):
        cut(frame, place)
    stages["crop"] = time.perf_counter() - began - stages["decode"]

    began = time.perf_counter()
    score_track(track, Waveform(0.1 * noise, SAMPLE_RATE), syncnet=network)
    stages["network and MFCC"] = time.perf_counter() - began - stages["decode"] - stages["crop"]

    for name, spent in stages.items():
        print(f"{name:40} {spent / seconds:8.2f} s for each second of video")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.1f} s of {source.width} x {source.height}, peak {peak:.0f} MiB resident")


def tracked(source: VideoFile, model: Path) -> FaceTrack:
    with MediaPipeDetector(model) as detector:
        people = cluster_tracks(source, track_faces(source, detector))
    return build_face_track(people, select(people))


def stand_in(source: VideoFile) -> FaceTrack:
    """A face that stays in the middle."""
    x, y, count = source.width / 2, source.height / 2, source.frame_count
    points = np.tile(np.array([[x - 9, y - 9], [x + 9, y - 9], [x, y + 6]]), (count, 1, 1))
    boxes = np.tile(np.array([x - 20, y - 20, x + 20, y + 25]), (count, 1))
    return FaceTrack(source, points, boxes=boxes, mouth_openings=np.zeros(count))


if __name__ == "__main__":
    main()
