"""Small networks in the official layout with reproducible weights, and the procedural clip that goes with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latentsync.audio import features, mel
from latentsync.models.layers import sinusoid_table
from latentsync.models.stable_syncnet import StableSyncNet
from latentsync.models.syncnet import SyncNet
from latentsync.models.unet import UNet
from latentsync.models.vae import DiffusersVAE
from latentsync.models.whisper import WhisperEncoder, whisper_encoder
from latentsync.video.color import BT709
from latentsync.video.timeline import MODEL_RATE
from latentsync.weights import loader
from latentsync.weights.loader import Checkpoint
from latentsync.weights.random_init import WHISPER_DIMS
from tests.support import procedural
from tests.support.paths import GOLDEN
from tests.support.synthetic_weights import synthetic_state_dict


class Clip:
    """The procedural clip of a case, as a FrameSource."""

    name = "the procedural clip"
    rate = MODEL_RATE
    color = BT709
    pixel_aspect = Fraction(1)
    has_alpha = False

    def __init__(self, case: dict[str, Any]) -> None:
        self.height, self.width, self.scale = case["height"], case["width"], case["scale"]
        self.frame_count = case.get("source_frames") or case["frames"]
        self.duration_seconds = self.frame_count / self.rate

    @property
    def identity(self) -> tuple[int, ...]:
        return self.height, self.width, self.frame_count

    def index_at(self, seconds: Fraction) -> int:
        return min(int(seconds * self.rate), self.frame_count - 1)

    def time_of(self, index: int) -> Fraction:
        return index / self.rate

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        return map(self.frame, indices)

    def frame(self, i: int) -> np.ndarray:
        return procedural.frame(i, self.height, self.width)

    def points(self, count: int) -> np.ndarray:
        return np.stack([procedural.points(i, self.height, self.width, self.scale) for i in range(count)])


def speech_states(seconds: float) -> Tensor:
    return official_states(torch.from_numpy(procedural.speech(seconds)))


def official_states(samples: Tensor) -> Tensor:
    """The states of a recording (samples,) at 16 kHz, cut like the official code cuts it."""
    peak = mel.log_peak(mel.mel_power(samples))
    return torch.cat(list(features.encode_audio(samples, whisper(), peak, "official")))


@cache
def layouts() -> dict[str, dict[str, list[int]]]:
    return json.loads((GOLDEN / "layouts.json").read_text(encoding="utf-8"))


@cache
def unet(layout: str) -> UNet:
    """A UNet of a layout, with the weights of its recorded results."""
    shapes = layouts()[layout]
    tables = {key: sinusoid_table(*shape[1:]) for key, shape in shapes.items() if key.endswith(".pe")}
    weights = synthetic_state_dict({key: shape for key, shape in shapes.items() if key not in tables})
    return loader.load_unet(Checkpoint(Path(layout), weights | tables))


@cache
def vae() -> DiffusersVAE:
    weights = synthetic_state_dict(layouts()["vae_tiny"], "vae.")
    return loader.load_vae(Checkpoint(Path("vae_tiny"), weights))


@cache
def whisper() -> WhisperEncoder:
    table = "encoder.positional_embedding"
    weights = synthetic_state_dict(
        {key: shape for key, shape in layouts()["whisper_tiny"].items() if key != table}, "whisper."
    )
    weights[table] = whisper_encoder(WHISPER_DIMS)().state_dict()[table]
    return loader.load_whisper(Checkpoint(Path("whisper_tiny"), weights, {"dims": WHISPER_DIMS}))


def syncnet_weights(salt: str) -> dict[str, Tensor]:
    """Weights of SyncNet v2, full size, with variances that are positive."""
    shapes = json.loads((GOLDEN / "layout_syncnet_v2.json").read_text(encoding="utf-8"))
    weights = synthetic_state_dict({key: shape for key, shape in shapes.items() if shape}, salt)
    counts = {key: torch.tensor(0) for key in shapes if key.endswith("num_batches_tracked")}
    variances = {key: 1 + tensor.abs() for key, tensor in weights.items() if key.endswith("running_var")}
    return weights | variances | counts


@cache
def syncnet(salt: str = "syncnet.") -> SyncNet:
    return loader.load_syncnet(Checkpoint(Path("syncnet"), syncnet_weights(salt)))


def stable_syncnet(salt: str) -> StableSyncNet:
    """Full size: 1.6 GB. Not cached."""
    weights = synthetic_state_dict(layouts()["stable_syncnet"], salt)
    return loader.load_stable_syncnet(Checkpoint(Path("stable_syncnet"), weights))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def worst(given: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(given.numpy() - expected).max())
