"""Detection and tracking, decoding included: frames a second, processor time a frame, and memory for longer clips.

Usage: python -m benchmarks.faces VIDEO --model face_landmarker.task [--repeats 1 10] [--json FILE]

Each row is a process of its own, so that its peak memory is its own. A clip repeated ten times is the same file,
read ten times over in one scan.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from latentsync.faces.face_track import FaceTrack, build_face_track
from latentsync.faces.identities import cluster_tracks, select
from latentsync.faces.mediapipe_detector import MediaPipeDetector
from latentsync.faces.tracker import track_faces
from latentsync.video.video_file import VideoFile

COLUMNS = ("repeats", "frames", "faces", "found", "fps", "cpu_ms_per_frame", "peak_mib")


class Laps:
    """A video file several times over, forwards each time, as one source."""

    def __init__(self, once: VideoFile, laps: int) -> None:
        self.once, self.laps = once, laps
        self.name, self.rate, self.height, self.width = once.name, once.rate, once.height, once.width
        self.pixel_aspect = once.pixel_aspect
        self.frame_count = once.frame_count * laps
        self.duration_seconds = once.duration_seconds * laps

    def index_at(self, seconds: Fraction) -> int:
        return min(int(seconds * self.rate), self.frame_count - 1)

    def time_of(self, index: int) -> Fraction:
        return index / self.rate

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        for _, lap in groupby(indices, key=lambda i: i // self.once.frame_count):
            yield from self.once.read(i % self.once.frame_count for i in lap)


def track_largest_face(source: VideoFile, model: Path) -> FaceTrack:
    """The track of the largest face. `model` is MediaPipe's face_landmarker.task."""
    with MediaPipeDetector(model) as detector:
        people = cluster_tracks(source, track_faces(source, detector))
    return build_face_track(people, select(people))


def measure(video: Path, model: Path, repeats: int) -> dict[str, Any]:
    """One row."""
    source = Laps(VideoFile(video), repeats)
    with MediaPipeDetector(model) as detector:
        began, spent = time.perf_counter(), time.process_time()
        people = cluster_tracks(source, track_faces(source, detector))
        seconds, processor = time.perf_counter() - began, time.process_time() - spent
    return {
        "repeats": repeats,
        "frames": source.frame_count,
        "faces": len(people.members),
        "found": [len(identity.frames) for identity in people.members],
        "fps": round(source.frame_count / seconds, 1),
        "cpu_ms_per_frame": round(1000 * processor / source.frame_count, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure detection and tracking.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.video, arguments.model, arguments.row)))
        return
    print("  ".join(f"{name:>16}" for name in COLUMNS))
    rows = []
    for repeats in arguments.repeats:
        command = [sys.executable, "-m", "benchmarks.faces", str(arguments.video), "--model", str(arguments.model)]
        done = subprocess.run([*command, "--row", str(repeats)], check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print("  ".join(f"{rows[-1][name]!s:>16}" for name in COLUMNS), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"video": arguments.video.name, "rows": rows}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
