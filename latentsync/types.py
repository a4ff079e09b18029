"""What travels between the stages: frozen, validated, and printed as shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
import torch

from .errors import AudioError, FaceError, UsageError, check_choice
from .fade import strengths
from .spec import AUDIO_STATES, AUDIO_WIDTH, LATENT_CHANNELS, LATENT_STRIDE, MEL_RATE, MOST_OVERLAP
from .timeline import Timeline

if TYPE_CHECKING:
    from .media import FrameSource


Segments = Literal["overlapping", "upstream"]
"""How a recording is cut for Whisper, which hears 30 s at a time."""

Silence = Literal["as is", "keep source", "close mouth"]
"""What becomes of frames in which nobody speaks."""


Smoothing = Literal["zero-lag", "upstream"]

Scheduler = Literal["ddim", "dpm++ 2m", "euler", "unipc"]
"""What takes the noise away, step by step."""

Settings = Mapping[str, object]
"""What something was made with, by name: for the run record."""


class Codec(Protocol):
    """A Stable Diffusion 1.x VAE, whoever runs it. Latents are unscaled posterior means."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, R, R) in [-1, 1] -> (n, 4, R/8, R/8)."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, 4, R/8, R/8) -> (n, 3, R, R), about [-1, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound as it was recorded.

    samples: float32 (channels, samples), nominally in [-1, 1].
    rate: samples per second.
    """

    samples: torch.Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[0] < 1:
            raise AudioError(f"sound must be (channels, samples), not {tuple(self.samples.shape)}")
        if self.rate <= 0:
            raise AudioError(f"a sample rate must be positive, not {self.rate}")

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(self.samples.shape[1], self.rate)

    def lasting(self, seconds: Fraction) -> Waveform:
        """The same sound cut, or filled up with silence, to the whole samples nearest to `seconds`."""
        missing = round(seconds * self.rate) - self.samples.shape[1]
        return Waveform(torch.nn.functional.pad(self.samples, (0, missing)), self.rate)

    def __repr__(self) -> str:
        channels, count = self.samples.shape
        return f"Waveform({channels} channels, {count / self.rate:.3f} s at {self.rate} Hz)"


@dataclass(frozen=True, slots=True)
class HearingSettings:
    """How a recording is listened to.

    silence: as it comes out of the network; the source's own frames; or states of true silence.
    threshold_db: above its background, from which sound counts as speech; 1 to 20.
    hang_seconds: how long speech is taken to go on after its level has fallen; 0 to 5.
    segments: overlapping, or cut every 30 s as upstream does.
    """

    silence: Silence = "as is"
    threshold_db: float = 4.0
    hang_seconds: float = 0.2
    segments: Segments = "overlapping"

    def __post_init__(self) -> None:
        check_choice("silence", self.silence, get_args(Silence))
        check_choice("segments", self.segments, get_args(Segments))
        if not 1.0 <= self.threshold_db <= 20.0:
            raise UsageError(f"the speech threshold must be from 1 to 20 dB, not {self.threshold_db}")
        if not 0.0 <= self.hang_seconds <= 5.0:
            raise UsageError(f"the hang time must be from 0 to 5 s, not {self.hang_seconds}")


@dataclass(frozen=True, eq=False)
class AudioFeatures:
    """What the lips hear and what the listener hears.

    states: (positions, 5, 384) Whisper states, 50 positions a second, on the CPU.
    waveform: the sound of the finished video, untouched.
    first: position of states[0]; negative where there are states of before the sound.
    spoken: bool (n,), 100 a second: whether the lips follow; elsewhere the source's frames stay. None: everywhere.
    made_with: how it was listened to.
    """

    states: torch.Tensor
    waveform: Waveform
    first: int = 0
    spoken: np.ndarray | None = None
    made_with: Settings = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or self.states.shape[1:] != (AUDIO_STATES, AUDIO_WIDTH):
            raise AudioError(f"audio states must be (T, {AUDIO_STATES}, {AUDIO_WIDTH}), not {tuple(self.states.shape)}")
        if self.spoken is not None and not self.spoken.any():
            raise AudioError(
                "no speech stands out of the recording's background: lower the threshold, wire the voice alone as "
                "vocals, or choose 'as is' for silence"
            )

    def spoken_in(self, timeline: Timeline) -> np.ndarray:
        """bool (output frames,): whether the lips follow; where there is no more sound, they do not."""
        if self.spoken is None:
            return np.ones(timeline.frame_count, dtype=bool)
        until = np.concatenate(([0], np.cumsum(self.spoken)))
        edges = [frame * MEL_RATE / timeline.rate for frame in range(timeline.frame_count + 1)]
        first = np.minimum([floor(edge) for edge in edges[:-1]], len(self.spoken))
        end = np.minimum([ceil(edge) for edge in edges[1:]], len(self.spoken))
        return until[end] > until[first]

    def __repr__(self) -> str:
        return f"AudioFeatures({self.states.shape[0]} positions, {self.waveform!r})"


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One person's face over a source. Holds no pixels: they are read again when needed.

    source: the frames it was measured on.
    points: float64 (frames, 3, 2), pixels: centre of the image-left brow, of the image-right brow, of the nose;
        NaN in frames without the face.
    cuts: frames that begin a new shot, the first not counted.
    smoothing: "zero-lag" if the points are steady already, "upstream" if LatentSync's filter is to steady the crop.
    made_with: whose face it is, and how it was followed.
    """

    source: FrameSource
    points: np.ndarray
    cuts: tuple[int, ...] = ()
    smoothing: Smoothing = "upstream"
    made_with: Settings = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        check_choice("smoothing", self.smoothing, get_args(Smoothing))
        if self.points.shape != (self.source.frame_count, 3, 2):
            raise FaceError(
                f"{self.source.name}: a face track needs points of shape ({self.source.frame_count}, 3, 2), "
                f"not {self.points.shape}"
            )
        if not self.present.any():
            raise FaceError(
                f"{self.source.name}: no face found in any of its {self.source.frame_count} frames. "
                "Use a clip where one face is seen from the front or nearly so, or wire landmarks of your own."
            )

    @property
    def present(self) -> np.ndarray:
        """bool (frames,): whether the face is there."""
        return np.isfinite(self.points.sum(axis=(1, 2)))

    @property
    def shots(self) -> np.ndarray:
        """int64 (frames,): number of the shot that each frame is of, from 0."""
        return np.searchsorted(self.cuts, np.arange(self.source.frame_count), side="right")

    def __repr__(self) -> str:
        return f"FaceTrack({int(self.present.sum())} of {self.source.frame_count} frames, {self.source.name})"


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How the lips are sampled.

    seed: of the one noise frame of the clip, 0 to 2^64 - 1.
    steps: denoising steps, 1 to 1000.
    guidance: strength of the audio; 1 is off (and half the work).
    step_cache: the whole UNet runs every so many steps; 1 runs it in each.
    scheduler: ddim is upstream's; dpm++ 2m and unipc are made for fewer steps.
    overlap: frames that neighbouring windows share and blend, 0 to 12.
    guidance_start, guidance_end: shares of the steps, 0 to 1; a step between is guided, any other costs half.
    """

    seed: int = 1247
    steps: int = 20
    guidance: float = 1.5
    step_cache: int = 3
    scheduler: Scheduler = "ddim"
    overlap: int = 0
    guidance_start: float = 0.0
    guidance_end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise UsageError(f"a seed must be from 0 to {2**64 - 1}, not {self.seed}")
        if not 1 <= self.steps <= 1000:
            raise UsageError(f"steps must be from 1 to 1000, not {self.steps}")
        if not 1.0 <= self.guidance <= 10.0:
            raise UsageError(f"guidance must be from 1 to 10 (useful: 1 to 3), not {self.guidance}")
        if not 1 <= self.step_cache <= 10:
            raise UsageError(f"step_cache must be from 1 (off) to 10, not {self.step_cache}")
        check_choice("scheduler", self.scheduler, get_args(Scheduler))
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise UsageError(f"overlap must be from 0 (off) to {MOST_OVERLAP} frames, not {self.overlap}")
        if not 0.0 <= self.guidance_start < self.guidance_end <= 1.0:
            raise UsageError(
                "guidance_start must be less than guidance_end, both from 0 to 1, "
                f"not {self.guidance_start} and {self.guidance_end}"
            )
        if self.guidance > 1 and not self.guided_steps:
            raise UsageError(
                f"guidance from {self.guidance_start} to {self.guidance_end} holds none of {self.steps} steps: "
                "widen it, take more steps, or set guidance to 1"
            )

    @property
    def guided_steps(self) -> range:
        """The steps, from 0, that guidance is computed in: those whose middle is in its share."""
        if self.guidance <= 1:
            return range(0)
        first, end = (ceil(round(share * self.steps, 6) - 0.5) for share in (self.guidance_start, self.guidance_end))
        return range(first, end)


@dataclass(frozen=True, slots=True)
class Origin:
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
    settings: Mapping[str, Settings]
    seconds: float

    @classmethod
    def of(
        cls,
        version: str,
        files: tuple[Path, ...],
        track: FaceTrack,
        features: AudioFeatures,
        sampler: SamplerSettings,
        timeline: Settings,
        seconds: float,
    ) -> Origin:
        """From what was sampled and how; `timeline` is what was asked of it."""
        settings: dict[str, Settings] = {
            "faces": track.made_with,
            "audio": features.made_with,
            "sampler": asdict(sampler),
            "timeline": timeline,
        }
        return cls(version, files, sampler.seed, settings, round(seconds, 3))


@dataclass(frozen=True, eq=False)
class LipTrack:
    """The regenerated mouths of a clip, still as latents, with all that is needed to finish it.

    track: the face, and through it the source.
    timeline: which source frame each output frame shows.
    latents: fp16 (slots, 4, R/8, R/8), scaled, on the CPU.
    slots: int64 (output frames,): index into latents; -1 where the source passes untouched.
    waveform: the sound of the finished video.
    codec: decodes the latents.
    crops: (slots, height, width, 3) in [0, 1], of any size: faces that stand in for the decoded ones.
    origin: what they were made with, where that is to be recorded.
    """

    track: FaceTrack
    timeline: Timeline
    latents: torch.Tensor
    slots: np.ndarray
    waveform: Waveform
    codec: Codec
    crops: torch.Tensor | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        if self.latents.ndim != 4 or self.latents.shape[1] != LATENT_CHANNELS:
            raise UsageError(f"lip latents must be (slots, {LATENT_CHANNELS}, r, r), not {tuple(self.latents.shape)}")
        if self.slots.shape != (self.timeline.frame_count,):
            raise UsageError(f"{self.timeline.frame_count} output frames need as many slots, not {self.slots.shape}")
        if self.crops is not None and (self.crops.shape[::3] != (len(self.latents), 3) or self.crops.ndim != 4):
            raise UsageError(
                f"{len(self.latents)} crops were taken out and as many must come back, (crops, height, width, 3), "
                f"not {tuple(self.crops.shape)}"
            )

    @property
    def resolution(self) -> int:
        """Side of the square crop in pixels."""
        return self.latents.shape[-1] * LATENT_STRIDE

    @property
    def strength(self) -> np.ndarray:
        """float32 (output frames,) in [0, 1]: how much of the lips is seen; less where untouched frames are near."""
        return strengths(self.slots >= 0, self.track.shots[list(self.timeline.source_index)])

    def __repr__(self) -> str:
        return f"LipTrack({self.timeline!r}, {len(self.latents)} regenerated at {self.resolution} px, {self.track!r})"
