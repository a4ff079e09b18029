"""The CPU time that the main process of `run --cluster` needs for a frame. It limits the number of workers that help.

The clip is scripts.sample_clip, scaled. Networks are stand-ins. Each stage runs alone, and the CPU time of all threads
counts, so that other programs disturb little.

Usage: python -m benchmarks.driver [--width 1080] [--height 1440] [--resolution 512]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.stand_in_nodes.networks import PoolingCodec
from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import composite
from latentsync.compositing.settings import BlendSettings
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.mediapipe_detector import face_from_mesh
from latentsync.models.constants import AUDIO_STATES, AUDIO_WIDTH, LATENT_CHANNELS, LATENT_STRIDE
from latentsync.output.video_writer import VideoWriter
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.sampler import read_windows
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import Timeline
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import make_sample

CRF = 18


def cpu_seconds(work: Iterable[object]) -> float:
    """CPU time of this process, all threads, to run an iterator to its end."""
    began = time.process_time()
    deque(work, maxlen=0)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=1080, help="of the video (default: %(default)s)")
    parser.add_argument("--height", type=int, default=1440, help="of the video (default: %(default)s)")
    parser.add_argument("--resolution", type=int, default=512, help="of the face crops (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        track = scaled_track(folder, args.width, args.height)
        source, count = track.source, track.source.frame_count
        timeline, waveform = Timeline(source.rate, tuple(range(count))), Waveform(torch.zeros(1, count * 640), 16000)
        features = AudioFeatures(torch.zeros(2 * count, AUDIO_STATES, AUDIO_WIDTH), waveform)
        side = args.resolution // LATENT_STRIDE
        latents = torch.zeros(count, LATENT_CHANNELS, side, side, dtype=torch.float16)
        lips = LipTrack(track, timeline, latents, np.arange(count), waveform, PoolingCodec())
        frames = [made.frame for made in composite([lips], BlendSettings())]
        path, size = folder / "out.mp4", {"height": source.height, "width": source.width}
        with VideoWriter(path, rate=timeline.rate, crf=CRF, waveform=waveform, **size) as writer:
            encode = cpu_seconds(map(writer.write, frames))
            ending = time.process_time()
        encode += time.process_time() - ending
        spent = {
            "decode and crop": cpu_seconds(read_windows(track, features, timeline, SamplerSettings(), args.resolution)),
            "decode again and composite": cpu_seconds(composite([lips], BlendSettings())),
            "encode": encode,
        }
    spent["together"] = sum(spent.values())
    print("| stage | CPU ms a frame | frames a second of one core |\n|---|---|---|")
    for stage, seconds in spent.items():
        print(f"| {stage} | {1000 * seconds / count:.1f} | {count / seconds:,.0f} |")


def scaled_track(folder: Path, width: int, height: int) -> FaceTrack:
    """The sample clip in another size, and the track of its face."""
    sample, path = make_sample(folder / "sample"), folder / "scaled.mp4"
    video = VideoFile(sample.video)
    waveform, size = Waveform(torch.zeros(1, 16000), 16000), {"height": height, "width": width}
    with VideoWriter(path, rate=video.rate, crf=CRF, waveform=waveform, **size) as writer:
        for frame in video.read(range(video.frame_count)):
            writer.write(cv2.resize(frame, (width, height)))
    landmarks = json.loads(sample.landmarks.read_text(encoding="utf-8"))
    scale = np.array([width, height]) / np.array(landmarks["image_size"])[::-1]
    faces = [face_from_mesh(np.array(face["landmarks_xy"]) * scale) for (face,) in landmarks["frames"]]
    return FaceTrack(VideoFile(path), np.stack([face.points for face in faces]))


if __name__ == "__main__":
    main()
