"""Training clips for the UNet: an original video, the same video with another mouth, and the audio of that mouth."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from latentsync.audio.features import BEFORE, encode_audio, frame_windows
from latentsync.audio.mel import log_peak, mel_power
from latentsync.faces import alignment
from latentsync.models.constants import LATENT_SCALE, WINDOW_FRAMES
from latentsync.models.vae import DiffusersVAE
from latentsync.models.whisper import WhisperEncoder
from latentsync.sampling.conditioning import prepare_conditioning

from . import voices
from .clips import RESOLUTION, Camera, crop_matrices, crops, render
from .face import TalkingFace

NUM_SEGMENTS = 50
NUM_CLIPS = 420
STILL_SHARE = 0.5  # of the original videos show the photo's mouth, like the demo. The others talk
RATES = (25, 25, 30)
CENTER_SECONDS = 0.01  # of a frame's audio window, after the frame's instant


def build_clips(whisper: WhisperEncoder, seed: int, log: Callable[[str], None]) -> dict[str, Tensor]:
    """The clips, in pixels.

    Returns:
        source, target: uint8 (clips, 16, 3, 128, 128). Both have the same camera, light and alignment.
        audio: float16 (clips, 16, 50, 384), the audio features of each target frame.
    """
    rng, face = np.random.default_rng(seed), TalkingFace.load()
    recordings = list(voices.segments(NUM_SEGMENTS, rng))
    mouths = [voices.mouth(recording) for recording in recordings]
    states = [hidden_states(recording, whisper) for recording in recordings]
    log(f"{NUM_SEGMENTS} recordings, {sum(map(len, recordings)) / voices.SAMPLE_RATE / 60:.1f} min")
    clips: dict[str, list[Tensor]] = {name: [] for name in ("source", "target", "audio")}
    for _ in range(NUM_CLIPS):
        rate, camera = int(rng.choice(RATES)), Camera.random(rng)
        index, frames = random_window(mouths, rate, rng)
        other_index, other_frames = random_window(mouths, rate, rng)
        matrices = crop_matrices(face, camera, WINDOW_FRAMES, rate, rng)
        opening, spread = mouth_at(mouths[index], frames, rate)
        source_opening, source_spread = mouth_at(mouths[other_index], other_frames, rate)
        target_heads = [face.speak(*values) for values in zip(opening, spread, strict=True)]
        if rng.random() < STILL_SHARE:
            source_heads = [face.head] * WINDOW_FRAMES
        else:
            source_heads = [face.speak(*values) for values in zip(source_opening, source_spread, strict=True)]
        for name, heads in (("source", source_heads), ("target", target_heads)):
            clips[name].append(torch.from_numpy(crops(render(face, heads, camera, rate), matrices)))
        clips["audio"].append(frame_windows(states[index], frames, Fraction(rate), -BEFORE).half())
    return {name: torch.stack(tensors) for name, tensors in clips.items()}


def hidden_states(recording: np.ndarray, whisper: WhisperEncoder) -> Tensor:
    samples = torch.from_numpy(recording)
    return torch.cat(list(encode_audio(samples, whisper, log_peak(mel_power(samples)))))


def random_window(
    mouths: list[tuple[np.ndarray, np.ndarray]], rate: int, rng: np.random.Generator
) -> tuple[int, range]:
    """A recording, and 16 frames of it."""
    index = int(rng.integers(len(mouths)))
    last = int(len(mouths[index][0]) / voices.LEVEL_RATE * rate) - WINDOW_FRAMES
    start = int(rng.integers(last))
    return index, range(start, start + WINDOW_FRAMES)


def mouth_at(mouth: tuple[np.ndarray, np.ndarray], frames: range, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Opening and spread at some frames."""
    instants = (np.array(frames) / rate + CENTER_SECONDS) * voices.LEVEL_RATE
    opening, spread = (np.interp(instants, np.arange(len(values)), values) for values in mouth)
    return opening, spread


def encode_clips(clips: dict[str, Tensor], vae: DiffusersVAE) -> dict[str, Tensor]:
    """Encode the clips for the UNet.

    Returns:
        conditioning: float16 (clips, 9, 16, r, r), of the original video: mask, masked latents, reference latents.
        target: float16 (clips, 4, 16, r, r), the scaled latents that the UNet learns to produce.
        audio: as in `build_clips`.
    """
    mask = torch.from_numpy(alignment.keep_mask(RESOLUTION))
    conditioning = [prepare_conditioning(source, mask, vae).movedim(0, 1).half() for source in clips["source"]]
    targets = [(vae.encode(clip.float() / 127.5 - 1) * LATENT_SCALE).movedim(0, 1).half() for clip in clips["target"]]
    return {"conditioning": torch.stack(conditioning), "target": torch.stack(targets), "audio": clips["audio"]}
