"""How long a GPU waits for the CPU: a timeline with simulated kernel times, and real frames.

The networks compute nothing. Each call adds the time of its kernels, estimated by `benchmarks.roofline`, to the queue
of a simulated GPU, and returns at once, as on a real one. Copies to the CPU wait for the queue. Decoding, cropping,
pasting and encoding are real, so the CPU of this machine decides how long the GPU waits.

Usage: python -m benchmarks.overlap VIDEO [--version 1.5] [--gpu "RTX 4090"] [--speed balanced] [--seconds 8]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import roofline
from benchmarks.media import loop_video
from benchmarks.stand_in_nodes.networks import Deaf, PoolingCodec
from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import SAMPLE_RATE, Waveform
from latentsync.bench import FACE_POINTS
from latentsync.faces.face_track import FaceTrack
from latentsync.models.constants import AUDIO_STATES, AUDIO_WIDTH, LATENT_STRIDE
from latentsync.output.result import LipSyncResult
from latentsync.sampling import sampler
from latentsync.sampling.settings import SPEEDS, SamplerSettings
from latentsync.video.timeline import build_timeline
from latentsync.video.video_file import VideoFile
from latentsync.weights.catalog import MODELS

STATES_PER_SECOND = 50


class SimulatedGpu:
    """A queue of kernels. All values are in seconds.

    busy: the sum of its kernels.
    waits: how long it was idle before each call. The first one is the time before its first kernel.
    host_waits: how long the CPU waited for it.
    """

    def __init__(self) -> None:
        self.busy = self.host_waits = 0.0
        self.waits: list[float] = []
        self._free_at = time.perf_counter()

    def launch(self, seconds: float) -> None:
        now = time.perf_counter()
        self.waits.append(max(now - self._free_at, 0))
        self._free_at = max(now, self._free_at) + seconds
        self.busy += seconds

    def synchronize(self) -> None:
        wait = max(self._free_at - time.perf_counter(), 0)
        self.host_waits += wait
        time.sleep(wait)


class OnGpu(Tensor):
    """A tensor whose values are on the CPU, but which must be waited for."""

    gpu: ClassVar = SimulatedGpu()

    def cpu(self, *args: object, **kwargs: object) -> Tensor:
        self.gpu.synchronize()
        return super().cpu(*args, **kwargs).as_subclass(Tensor)


class SlowVAE(PoolingCodec):
    """A VAE that computes nothing, as slow as the real one."""

    def __init__(self, encode_seconds: float, decode_seconds: float) -> None:
        self._encode_seconds, self._decode_seconds = encode_seconds, decode_seconds

    def encode(self, images: Tensor) -> Tensor:
        OnGpu.gpu.launch(len(images) * self._encode_seconds)
        OnGpu.gpu.synchronize()  # the latents are kept on the CPU
        return super().encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        OnGpu.gpu.launch(len(latents) * self._decode_seconds)
        return super().decode(latents).as_subclass(OnGpu)


class SlowUNet(Deaf):
    """A UNet that computes nothing. Each pass takes the same part of a window's time."""

    def __init__(self, pass_seconds: float) -> None:
        self._pass_seconds = pass_seconds

    def __call__(self, x: Tensor, *args: object, do_cfg: bool = False) -> tuple[Tensor, Tensor]:
        OnGpu.gpu.launch(self._pass_seconds)
        noise, features = super().__call__(x, *args, do_cfg=do_cfg)
        return noise.as_subclass(OnGpu), features


@contextmanager
def row(stage: str) -> Iterator[None]:
    """Print a row of the table: what the GPU did in the block."""
    OnGpu.gpu, started = SimulatedGpu(), time.perf_counter()
    yield
    gpu, seconds = OnGpu.gpu, time.perf_counter() - started
    first, *others = gpu.waits
    values = (seconds, gpu.busy, gpu.host_waits, first, sum(others), max(others))
    sys.stdout.write(f"| {stage} | {' | '.join(f'{value:.2f}' for value in values)} |\n")


def main() -> None:
    options = _options()
    spec = MODELS[options.version]
    costs = roofline.count_stages(roofline.Networks.on_meta(tiny=False), spec.resolution // LATENT_STRIDE)
    (gpu,) = (gpu for gpu in roofline.GPUS if gpu.name == options.gpu)
    settings = SamplerSettings().at_speed(options.speed)
    passes = sum(roofline.passes_of(settings).values())
    unet = SlowUNet(costs.window(settings).seconds(gpu) / passes)
    vae = SlowVAE(costs.encode.seconds(gpu), costs.decode.seconds(gpu))
    columns = ("stage", "s", "GPU busy", "CPU waits", "before the first kernel", "GPU waits after it", "longest wait")
    sys.stdout.write(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop_video(options.video, folder / "video.mp4", options.seconds)
        source = VideoFile(folder / "video.mp4")
        points = np.array(FACE_POINTS) * (source.height / 2) + (source.width / 4, source.height / 4)
        track = FaceTrack(source, np.broadcast_to(points, (source.frame_count, *points.shape)))
        waveform = Waveform(torch.zeros(1, int(source.duration_seconds * SAMPLE_RATE)), SAMPLE_RATE)
        states = torch.zeros(int(STATES_PER_SECOND * source.duration_seconds), AUDIO_STATES, AUDIO_WIDTH)
        timeline = build_timeline(source, source.duration_seconds, source.rate)
        with row("sample"):
            steps = sampler.sample_windows(
                unet, vae, track, AudioFeatures(states, waveform), timeline, settings, spec.resolution
            )
            lips = sampler.build_lip_track(steps, track, timeline, waveform, vae)
        with row("decode, paste and encode"):
            LipSyncResult((lips,)).save(folder / "out.mp4")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--version", choices=MODELS, default="1.5")
    parser.add_argument("--gpu", choices=[gpu.name for gpu in roofline.GPUS], default="RTX 4090")
    parser.add_argument("--speed", choices=SPEEDS, default="balanced")
    parser.add_argument("--seconds", type=float, default=8, help="length of the looped video")
    return parser.parse_args()


if __name__ == "__main__":
    main()
