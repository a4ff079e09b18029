"""The time of every stage but the networks, against decoding the same clip once and encoding it once.

One process does both in turn, `--rounds` times, so that both run under the same load. The networks are stand-ins that
need almost no time. The face comes from `--face-landmarks`: the landmarks of one frame serve for all.

Usage: python -m benchmarks.stages VIDEO SOUND.wav --face-landmarks FACE.json [--frames 150] [--rounds 3]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import ParamSpec, TypeVar

import av
import numpy as np
import torch

from benchmarks.media import loop_sound, loop_video
from benchmarks.stand_in_nodes.networks import Deaf, PoolingCodec
from latentsync.audio.features import AudioFeatures
from latentsync.audio.reader import read_audio
from latentsync.compositing.color_match import ColorMatcher
from latentsync.compositing.compositor import composite
from latentsync.compositing.mouth_blend import MouthBlender
from latentsync.compositing.settings import BlendSettings
from latentsync.faces import alignment, precomputed
from latentsync.faces.face_track import FaceTrack
from latentsync.faces.mediapipe_detector import face_from_mesh
from latentsync.models.constants import AUDIO_STATES, AUDIO_WIDTH
from latentsync.output.video_writer import VideoWriter
from latentsync.sampling import sampler
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import build_timeline
from latentsync.video.video_file import VideoFile

CRF = 18

P = ParamSpec("P")
T = TypeVar("T")


def main() -> None:
    options = _options()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = options.frames / float(VideoFile(options.video).rate)
        loop_video(options.video, folder / "video.mp4", seconds)
        loop_sound(options.sound, folder / "sound.wav", seconds)
        for _ in range(options.rounds):
            bare, stages = _bare(folder), _product(folder, options.face_landmarks)
            rounds.append({"bare decode and encode": bare, **stages})
    sys.stdout.write("| stage | s (median) | of the bare pass |\n|---|---|---|\n")
    for stage in rounds[0]:
        share = median(done[stage] / done["bare decode and encode"] for done in rounds)
        sys.stdout.write(f"| {stage} | {median(done[stage] for done in rounds):.2f} | {share:.2f} |\n")


def _bare(folder: Path) -> float:
    """Seconds to decode every frame and encode it again as it is."""
    start = time.perf_counter()
    with av.open(str(folder / "video.mp4")) as source, av.open(str(folder / "bare.mp4"), "w") as out:
        given = source.streams.video[0]
        given.thread_type = "AUTO"
        stream = out.add_stream("libx264", rate=given.average_rate, options={"crf": str(CRF)})
        stream.width, stream.height, stream.pix_fmt = given.width, given.height, "yuv420p"
        for i, frame in enumerate(source.decode(given)):
            frame.pts, frame.time_base, frame.pict_type = i, 1 / given.average_rate, 0
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return time.perf_counter() - start


def _product(folder: Path, face: Path) -> dict[str, float]:
    """Seconds of each stage of sampling and writing, and of all of them."""
    spent: Counter[str] = Counter()
    source, sound = VideoFile(folder / "video.mp4"), read_audio(folder / "sound.wav")
    (found,) = precomputed.read_json(face)["frames"][0]
    points = face_from_mesh(np.array(found["landmarks_xy"])).points
    track = FaceTrack(source, np.broadcast_to(points, (source.frame_count, *points.shape)))
    timeline = build_timeline(source, source.duration_seconds, source.rate)
    features = AudioFeatures(torch.zeros(int(50 * source.duration_seconds), AUDIO_STATES, AUDIO_WIDTH), sound)
    codec, settings = PoolingCodec(), SamplerSettings(num_inference_steps=1, guidance_scale=1)
    read, crop, paste, matched = VideoFile.read, alignment.crop, MouthBlender.paste, ColorMatcher.match_color
    VideoFile.read = lambda *given: _timed_each(read(*given), "decode, twice", spent)
    alignment.crop = _timed(crop, "crop", spent)
    MouthBlender.paste = _timed(paste, "blend", spent)
    ColorMatcher.match_color = _timed(matched, "match colors", spent)
    start = time.perf_counter()
    samples = sampler.sample_windows(Deaf(), codec, track, features, timeline, settings, 256)
    lips = sampler.build_lip_track(samples, track, timeline, sound, codec)
    size = {"height": source.height, "width": source.width}
    with VideoWriter(folder / "out.mp4", rate=timeline.rate, crf=CRF, waveform=lips.waveform, **size) as writer:
        write = _timed(writer.write, "encode", spent)
        for made in composite([lips], BlendSettings()):
            write(made.frame)
        ending = time.perf_counter()
    spent["encode"] += time.perf_counter() - ending
    whole = time.perf_counter() - start
    VideoFile.read, alignment.crop, MouthBlender.paste, ColorMatcher.match_color = read, crop, paste, matched
    return {**spent, "everything but the networks": whole}


def _timed(function: Callable[P, T], stage: str, spent: Counter[str]) -> Callable[P, T]:
    def timed(*given: P.args, **named: P.kwargs) -> T:
        start = time.perf_counter()
        result = function(*given, **named)
        spent[stage] += time.perf_counter() - start
        return result

    return timed


def _timed_each(items: Iterator[T], stage: str, spent: Counter[str]) -> Iterator[T]:
    while True:
        start = time.perf_counter()
        item = next(items, None)
        spent[stage] += time.perf_counter() - start
        if item is None:
            return
        yield item


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("sound", type=Path, help="16-bit WAV")
    parser.add_argument("--face-landmarks", type=Path, required=True, metavar="JSON", help="FACE_LANDMARKS")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
