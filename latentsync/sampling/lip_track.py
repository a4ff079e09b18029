"""The result of sampling: latents of the new mouths, and the settings of the run that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..audio.waveform import Waveform
from ..errors import UsageError
from ..faces.face_track import FaceTrack
from ..models.constants import LATENT_CHANNELS, LATENT_STRIDE
from ..models.protocols import VAEDecoder
from ..video.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Take:
    """The score of the result of one seed.

    confidence, distance: scores of SyncNet, see `scoring.sync.SyncScore`.
    offset_ms: time by which the sound is ahead of the lips.
    trusted: whether the clip is long enough for reliable scores.
    """

    seed: int
    confidence: float
    distance: float
    offset_ms: int
    trusted: bool

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: sync confidence {self.confidence:.2f}, distance {self.distance:.2f}, "
            f"offset {self.offset_ms} ms{'' if self.trusted else ' (too short to trust)'}"
        )


class SampledLatents(NamedTuple):
    """The result of sampling without its inputs: `latents` and `latent_index` of a `LipTrack`.

    seed: noise seed.
    seconds: duration of the sampling.
    """

    seed: int
    seconds: float
    latents: Tensor
    latent_index: np.ndarray


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model and the settings that made a lip track, for the run record.

    version: version of the model.
    files: files of the model.
    seed: noise seed.
    params: settings of each stage.
    seconds: duration of the sampling.
    takes: scores of all takes. These lips are the best take. Empty without scoring.
    """

    version: str
    files: tuple[Path, ...]
    seed: int
    params: Mapping[str, Mapping[str, object]]
    seconds: float
    takes: tuple[Take, ...] = ()


@dataclass(frozen=True, eq=False)
class LipTrack:
    """The new mouths of a clip, as latents, with all data that the compositor needs.

    face_track: the face and its video.
    timeline: source frame of each output frame.
    latents: fp16 (n, 4, R/8, R/8), scaled, on the CPU.
    latent_index: int64 (output frames,): index into latents, or -1 to keep the original frame.
    waveform: the audio to mux.
    vae: decodes the latents.
    crops: (n, height, width, 3) in [0, 1], of any size: edited faces that replace the decoded faces.
    provenance: model and settings of the run, for the run record. None: the record does not contain these values.
    """

    face_track: FaceTrack
    timeline: Timeline
    latents: Tensor
    latent_index: np.ndarray
    waveform: Waveform
    vae: VAEDecoder
    crops: Tensor | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.latents.ndim != 4 or self.latents.shape[1] != LATENT_CHANNELS:
            raise UsageError("Internal error: the latents of the new mouths have the wrong size. Please report this.")
        if self.latent_index.shape != (self.timeline.frame_count,):
            raise UsageError(
                f"Internal error: there are {len(self.latent_index)} latent indices for {self.timeline.frame_count} "
                "output frames. Please report this."
            )
        if self.crops is not None and (self.crops.shape[::3] != (len(self.latents), 3) or self.crops.ndim != 4):
            raise UsageError(
                f"Crops In received {len(self.crops)} images with {self.crops.shape[-1]} channels, but Crops Out made "
                f"{len(self.latents)} RGB crops. Connect all crops in the same order, as RGB images."
            )

    @property
    def resolution(self) -> int:
        """Side of the square face crops in pixels."""
        return self.latents.shape[-1] * LATENT_STRIDE

    def sampled(self, seed: int) -> SampledLatents:
        """The data with which `LipSyncPipeline.sample` returns these lips again, without sampling."""
        seconds = 0.0 if self.provenance is None else self.provenance.seconds
        return SampledLatents(seed, seconds, self.latents, self.latent_index)

    def __repr__(self) -> str:
        return f"LipTrack({self.timeline!r}, {len(self.latents)} new at {self.resolution} px, {self.face_track!r})"


def has_new_lips(speakers: Sequence[LipTrack], frame_count: int) -> np.ndarray:
    """Whether each of `frame_count` output frames has new lips of at least one speaker: bool (frame_count,)."""
    synced = np.zeros(frame_count, bool)
    for lips in speakers:
        synced[: len(lips.latent_index)] |= lips.latent_index >= 0
    return synced
