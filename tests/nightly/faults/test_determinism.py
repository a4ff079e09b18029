"""The same seed on the same machine gives the same pixels, whatever the memory held before."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.faces.face_track import FaceTrack
from latentsync.models import vae
from latentsync.models.protocols import VAE
from latentsync.models.vae import DiffusersVAE
from latentsync.oom import BatchLimit
from latentsync.sampling import sampler
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import build_timeline
from latentsync.video.video_file import VideoFile
from latentsync.weights import random_init
from scripts.sample_clip import Sample
from tests.support.encoder_pixels import digest_pixels
from tests.support.paths import REPOSITORY
from tests.support.scene import Scene

LEFT_IN_MEMORY = (0, 85, 170, 255)
"""For MALLOC_PERTURB_: new memory is filled with the complement, and left as it is for 0, so that code which reads what
it has not written is seen."""

CONVERT = """
import hashlib
import sys
from latentsync.output.formats import FORMATS
from latentsync.output.video_writer import encoder_converter, to_video_frame
from latentsync.video.color import BT709
from latentsync.video.video_file import VideoFile
from tests.support.encoder_pixels import visible_bytes
digest, source = hashlib.sha256(), VideoFile(sys.argv[1])
for frame in source.read(range(source.frame_count)):
    frame = frame[120:354, 80:390]  # 234 x 310: not multiples of 16
    for format in FORMATS:
        for pixels in (frame, frame.astype("uint16") * 257):
            pix_fmt = format.pix_fmt_for(234, 310, alpha=False, high_depth=pixels is not frame)
            digest.update(visible_bytes(to_video_frame(pixels, encoder_converter(pix_fmt, BT709))))
print(digest.hexdigest())
"""


def test_encoder_input_does_not_depend_on_memory_content(good: Sample) -> None:
    """One process for each value, because the content of new memory is set when a process starts."""
    digests = set()
    for value in LEFT_IN_MEMORY:
        environment = {"MALLOC_PERTURB_": str(value), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-c", CONVERT, good.video]
        digests.add(subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout)
    assert len(digests) == 1


def test_run_twice_gives_same_pixels(scene: Scene) -> None:
    """The file is lossless, because encoders may give the same pixels other bytes."""
    digests, output = set(), scene.output.with_suffix(".mkv")
    for value in LEFT_IN_MEMORY[:3]:
        environment = {"MALLOC_PERTURB_": str(value), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "latentsync", *scene.run("--cfg", 1.5, "--steps", 3, output=output)]
        subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, capture_output=True)
        digests.add(digest_pixels(output))
    assert len(digests) == 1


def lips(good: Sample, codec: VAE, most: int) -> torch.Tensor:
    """The latents of a clip of two windows, with this batch size in the UNet."""
    source = VideoFile(good.video)
    points = np.tile([[[200.0, 250.0], [280.0, 250.0], [240.0, 310.0]]], (source.frame_count, 1, 1))
    track = FaceTrack(source, points)
    states = torch.randn(150, 5, 384, generator=torch.Generator().manual_seed(0))
    features = AudioFeatures(states, Waveform(torch.zeros(1, 16_000 * 32 // 25), 16_000))
    timeline = build_timeline(source, Fraction(32, 25))
    settings = SamplerSettings(num_inference_steps=2, cache_interval=1)
    limit = BatchLimit(most, "the UNet")
    samples = sampler.sample_windows(
        random_init.unet(), codec, track, features, timeline, settings, 256, batch_limit=limit
    )
    return sampler.build_lip_track(samples, track, timeline, features.waveform, codec).latents.float()


def test_sampler_batch_size_changes_little(good: Sample) -> None:
    """Kernels sum in another order for another batch. Untrained layers amplify the difference."""
    codec = random_init.vae()
    one = lips(good, codec, 2)
    assert torch.equal(one, lips(good, codec, 2)), "the same batch, to the bit"
    pair = lips(good, codec, 4)
    furthest, spread = float((one - pair).abs().max()), float(one.std())
    assert furthest < 0.01 * spread


def test_vae_slice_size_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = []
    for most in (1, 2, 5):
        monkeypatch.setattr(vae, "SLICE_IMAGES", most)
        codec = DiffusersVAE(random_init.vae().vae)
        made.append(codec.decode(codec.encode(images)))
    levels = [((each / 2 + 0.5).clamp(0, 1) * 255).round() for each in made]
    furthest = max(float((each - levels[0]).abs().max()) for each in levels)
    assert furthest <= 1, "of 255: a value on the edge between two levels"
