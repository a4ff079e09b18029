"""CPU seconds that a score takes for each second of video, the share of each stage, and the peak memory.

Usage: python -m benchmarks.score VIDEO --model face_landmarker.task [--seconds 10] [--no-faces] [--no-network]

Each stage runs alone, on the picture and the sound of the video. SyncNet is untrained. CPU seconds, of all threads,
depend less on other programs than the time on a clock. --no-faces takes a box in the middle of the picture for the
face, and --no-network measures with a network that costs nothing: use both to measure the memory of long clips.
"""

from __future__ import annotations

import argparse
import resource
import time
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import numpy as np

from benchmarks.faces import track_largest_face
from latentsync.audio.reader import read_mono
from latentsync.faces.detection import FaceDetection
from latentsync.faces.face_track import FaceTrack, build_face_track
from latentsync.faces.identities import cluster_tracks, select
from latentsync.faces.tracker import FrameResult, TrackedFace
from latentsync.scoring.crops import cut, squares
from latentsync.scoring.score import score_track
from latentsync.video.video_file import VideoFile
from tests.support.sync_networks import LevelNet
from tests.support.tiny_networks import syncnet


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the time and the memory of a score.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", type=Path, help="face_landmarker.task")
    parser.add_argument("--seconds", type=float, default=10, help="of the video; all of it if it is shorter")
    parser.add_argument("--no-faces", action="store_true")
    parser.add_argument("--no-network", action="store_true")
    arguments = parser.parse_args()
    source = VideoFile(arguments.video, duration_seconds=Fraction(arguments.seconds))
    seconds, stages = float(source.duration_seconds), dict[str, float]()
    network = LevelNet() if arguments.no_network else syncnet()

    began = time.process_time()
    for _ in source.read(range(source.frame_count)):
        pass
    stages["decode"] = time.process_time() - began

    began = time.process_time()
    track = stand_in(source) if arguments.no_faces else track_largest_face(source, arguments.model)
    stages["detect and track"] = 0.0 if arguments.no_faces else time.process_time() - began - stages["decode"]

    assert track.boxes is not None
    places = squares(track.boxes)
    began = time.process_time()
    for frame, place in zip(source.read(range(source.frame_count)), places, strict=True):
        cut(frame, place)
    stages["crop"] = time.process_time() - began - stages["decode"]

    began = time.process_time()
    score_track(track, read_mono(arguments.video, duration_seconds=source.duration_seconds), syncnet=network)
    stages["network and sound"] = time.process_time() - began - stages["decode"] - stages["crop"]

    total = sum(stages.values())
    for name, spent in stages.items():
        print(f"{name:20} {spent / seconds:8.2f} CPU s for each second of video, {spent / total:4.0%}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.1f} s of {source.width} x {source.height}, peak {peak:.0f} MiB resident")


def stand_in(source: VideoFile) -> FaceTrack:
    """A face that stays in the middle. Its numbers are collected like those of a detected face."""
    x, y = source.width / 2, source.height / 2
    face = FaceDetection((x - 20, y - 20, x + 20, y + 25), 0.9, (x - 9, y - 9), (x + 9, y - 9), (x, y + 6), 0.0, 0.1)
    tracked_face = TrackedFace(0, face, np.zeros((12, 16, 3), np.float32))
    result = FrameResult(np.zeros((8, 8, 3), np.float32), (tracked_face,))
    people = cluster_tracks(source, repeat(result, source.frame_count))
    return build_face_track(people, select(people))


if __name__ == "__main__":
    main()
