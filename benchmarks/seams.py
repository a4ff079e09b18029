"""How much the edge of a new mouth is seen: blend mouth against blend box, on a clip, with untrained lips.

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

from latentsync import pipeline, synthetic
from latentsync.composite import BlendSettings, composite
from latentsync.face import align, blend
from latentsync.face.choose import choose
from latentsync.face.detect import Face, FaceDetector
from latentsync.face.follow import follow
from latentsync.face.mask import keep_mask
from latentsync.face.mouth import Edge, MouthPaste
from latentsync.face.people import gather
from latentsync.face.track import scan
from latentsync.media import VideoFile
from latentsync.sampling import draw_noise
from latentsync.spec import AUDIO_STATES, AUDIO_WIDTH, MODELS
from latentsync.timeline import Timeline
from latentsync.types import AudioFeatures, FaceTrack, LipTrack, SamplerSettings, Waveform
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
    with FaceDetector(options.model) as detector:
        source = VideoFile(options.video, duration_seconds=options.frames / VideoFile(options.video).rate)
        people = gather(source, scan(source, detector))
    lips = untrained(follow(people, choose(people)))
    print(f"{options.video.name}, {lips.timeline.frame_count} frames\n\n| blend | energy of the seam |\n|---|---|")
    for mode in ("mouth", "box"):
        print(f"| {mode} | {energy(lips, BlendSettings(mode)):.1f} |")
    if options.picture:
        cv2.imwrite(str(options.picture), drawn()[..., ::-1])


def untrained(track: FaceTrack) -> LipTrack:
    """Lips by the untrained networks, in one step."""
    count = track.source.frame_count
    timeline = Timeline(track.source.rate, tuple(range(count)))
    sound = Waveform(torch.zeros(1, round(16000 * timeline.duration_seconds)), 16000)
    features = AudioFeatures(torch.zeros(int(50 * timeline.duration_seconds) + 1, AUDIO_STATES, AUDIO_WIDTH), sound)
    settings, codec = SamplerSettings(steps=1, guidance=1), synthetic.vae()
    noise = draw_noise(settings.seed, RESOLUTION)
    samples = pipeline.sample(synthetic.unet(), codec, track, features, timeline, settings, noise)
    return pipeline.collect(samples, track, timeline, sound, codec)


def energy(lips: LipTrack, settings: BlendSettings) -> float:
    """Of the seam, the mean over the frames."""
    maps = align.track_matrices(lips.track, lips.resolution)
    made = composite([lips], settings)
    return float(np.mean([seams.energy(frame, source, maps[i], RESOLUTION) for i, (frame, source) in enumerate(made)]))


def drawn() -> np.ndarray:
    """uint8 RGB: the source, blend mouth and blend box side by side."""
    frame = np.ascontiguousarray(astronaut())
    face = Face(np.array(json.loads(LANDMARKS.read_text(encoding="utf-8"))["landmarks_xy"]))
    matrix = align.matrices(face.points[None], RESOLUTION, (), "zero-lag")[0]
    seen = align.crop(frame, matrix, RESOLUTION)
    bright = torch.from_numpy(seen) / 127.5 - 1 + TOO_BRIGHT
    boxed = blend.regenerated(bright[None], seen[None], keep_mask(RESOLUTION))[0]
    made = [frame, MouthPaste(RESOLUTION, Edge()).paste(frame, bright, matrix), blend.paste_box(frame, boxed, matrix)]
    parts = [cv2.resize(picture[SHOWN], None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC) for picture in made]
    return np.hstack(parts)


if __name__ == "__main__":
    main()
