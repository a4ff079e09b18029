"""How much the edge of a new mouth is seen: paste mode mouth against full crop, on a clip, with untrained lips.

The measure is the mean square, in levels, of the steps that laying in adds between neighbouring pixels of a thin band
along the mask's edge. Untrained lips are noise, which is the worst case: nothing at the edge fits.

Usage: python -m benchmarks.seams VIDEO --model face_landmarker.task [--frames 16] [--picture OUT.jpg]

The picture shows the mouths of scikit-image's astronaut (NASA, public domain), laid in 12 % too bright, both ways.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.data import astronaut

from benchmarks.faces import track_largest_face
from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.compositing import box_blend
from latentsync.compositing.compositor import composite
from latentsync.compositing.mouth_blend import MouthBlender
from latentsync.compositing.settings import BlendSettings
from latentsync.faces import alignment
from latentsync.faces.alignment import keep_mask
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.mediapipe_detector import face_from_mesh
from latentsync.models.constants import AUDIO_STATES, AUDIO_WIDTH
from latentsync.sampling import sampler
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import Timeline
from latentsync.video.video_file import VideoFile
from latentsync.weights import random_init
from latentsync.weights.catalog import MODELS
from scripts.sample_clip import LANDMARKS
from tests.support import seams

RESOLUTION = MODELS["1.5"].resolution
TOO_BRIGHT = 0.24  # of a face in [-1, 1]
SHOWN = (slice(50, 240), slice(130, 320))  # rows and columns of the astronaut's picture
ZOOM = 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure and show the seam of a new mouth.")
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="face_landmarker.task")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--picture", type=Path, help="also draw the picture")
    options = parser.parse_args()
    source = VideoFile(options.video, duration_seconds=options.frames / VideoFile(options.video).rate)
    lips = untrained(track_largest_face(source, options.model))
    print(f"{options.video.name}, {lips.timeline.frame_count} frames\n\n| paste mode | energy of the seam |\n|---|---|")
    for mode in ("mouth", "full crop"):
        print(f"| {mode} | {energy(lips, BlendSettings(mode)):.1f} |")
    if options.picture:
        cv2.imwrite(str(options.picture), drawn()[..., ::-1])


def untrained(track: FaceTrack) -> LipTrack:
    """Lips by the untrained networks, in one step."""
    count = track.source.frame_count
    timeline = Timeline(track.source.rate, tuple(range(count)))
    sound = Waveform(torch.zeros(1, round(16000 * timeline.duration_seconds)), 16000)
    features = AudioFeatures(torch.zeros(int(50 * timeline.duration_seconds) + 1, AUDIO_STATES, AUDIO_WIDTH), sound)
    settings, codec = SamplerSettings(num_inference_steps=1, guidance_scale=1), random_init.vae()
    samples = sampler.sample_windows(random_init.unet(), codec, track, features, timeline, settings, RESOLUTION)
    return sampler.build_lip_track(samples, track, timeline, sound, codec)


def energy(lips: LipTrack, settings: BlendSettings) -> float:
    """Of the seam, the mean over the frames."""
    maps = alignment.track_matrices(lips.face_track, lips.resolution)
    made = composite([lips], settings)
    return float(np.mean([seams.energy(frame, source, maps[i], RESOLUTION) for i, (frame, source) in enumerate(made)]))


def drawn() -> np.ndarray:
    """uint8 RGB: the source, mouth and full crop side by side."""
    frame = np.ascontiguousarray(astronaut())
    face = face_from_mesh(np.array(json.loads(LANDMARKS.read_text(encoding="utf-8"))["landmarks_xy"]))
    matrix = alignment.affine_matrices(face.points[None], RESOLUTION, (), "zero-lag")[0]
    seen = alignment.crop(frame, matrix, RESOLUTION)
    bright = torch.from_numpy(seen) / 127.5 - 1 + TOO_BRIGHT
    boxed = box_blend.apply_inpaint_mask(bright[None], seen[None], keep_mask(RESOLUTION))[0]
    made = [
        frame,
        MouthBlender(RESOLUTION, BlendSettings()).paste(frame, bright, matrix),
        box_blend.paste_box(frame, boxed, matrix),
    ]
    parts = [cv2.resize(picture[SHOWN], None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC) for picture in made]
    return np.hstack(parts)


if __name__ == "__main__":
    main()
