"""The result of sampling: latents of the new mouths, and what they were made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..audio.features import AudioFeatures
from ..audio.waveform import Waveform
from ..errors import UsageError
from ..faces.face_track import FaceTrack
from ..models.constants import LATENT_CHANNELS, LATENT_STRIDE
from ..models.protocols import VAE
from ..video.timeline import Timeline
from .settings import SamplerSettings

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the lips of a clip were made with, for the run record.

    version: of the model.
    files: of the model.
    seed: of the noise.
    settings: by stage.
    seconds: that the sampling took.
    """

    version: str
    files: tuple[Path, ...]
    seed: int
    settings: Mapping[str, Mapping[str, object]]
    seconds: float

    @classmethod
    def of(
        cls,
        version: str,
        files: tuple[Path, ...],
        track: FaceTrack,
        features: AudioFeatures,
        sampler: SamplerSettings,
        timeline: Mapping[str, object],
        seconds: float,
    ) -> Provenance:
        """From what was sampled and how; `timeline` is what was asked of it."""
        settings: dict[str, Mapping[str, object]] = {
            "faces": track.params,
            "audio": features.params,
            "sampler": asdict(sampler),
            "timeline": timeline,
        }
        return cls(version, files, sampler.seed, settings, round(seconds, 3))


@dataclass(frozen=True, eq=False)
class LipTrack:
    """The regenerated mouths of a clip, still as latents, with all that is needed to finish it.

    track: the face, and through it the source.
    timeline: which source frame each output frame shows.
    latents: fp16 (latent_index, 4, R/8, R/8), scaled, on the CPU.
    latent_index: int64 (output frames,): index into latents; -1 where the source passes untouched.
    waveform: the sound of the finished video.
    vae: decodes the latents.
    crops: (latent_index, height, width, 3) in [0, 1], of any size: faces that stand in for the decoded ones.
    provenance: what they were made with, where that is to be recorded.
    """

    track: FaceTrack
    timeline: Timeline
    latents: torch.Tensor
    latent_index: np.ndarray
    waveform: Waveform
    vae: VAE
    crops: torch.Tensor | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        if self.latents.ndim != 4 or self.latents.shape[1] != LATENT_CHANNELS:
            raise UsageError(
                f"lip latents must be (latent_index, {LATENT_CHANNELS}, r, r), not {tuple(self.latents.shape)}"
            )
        if self.latent_index.shape != (self.timeline.frame_count,):
            raise UsageError(
                f"{self.timeline.frame_count} output frames need as many latent_index, not {self.latent_index.shape}"
            )
        if self.crops is not None and (self.crops.shape[::3] != (len(self.latents), 3) or self.crops.ndim != 4):
            raise UsageError(
                f"{len(self.latents)} crops were taken out and as many must come back, (crops, height, width, 3), "
                f"not {tuple(self.crops.shape)}"
            )

    @property
    def resolution(self) -> int:
        """Side of the square crop in pixels."""
        return self.latents.shape[-1] * LATENT_STRIDE

    def __repr__(self) -> str:
        return f"LipTrack({self.timeline!r}, {len(self.latents)} regenerated at {self.resolution} px, {self.track!r})"
