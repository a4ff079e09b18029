"""Whisper encoder features (50 Hz) and the 10-step window that conditions each video frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AudioError, UsageError, check_choice
from ..models.constants import (
    AUDIO_POSITIONS,
    AUDIO_STATES,
    AUDIO_WIDTH,
    MEL_RATE,
)
from ..models.whisper import MEL_BINS, SEGMENT_MELS, WhisperEncoder
from ..tensor_buffer import TensorBuffer
from ..video.timeline import Timeline
from . import vad
from .mel import BLOCK_MELS, HOP_SAMPLES, log_mel, mel_power
from .vad import VoiceActivity
from .waveform import BLOCK_SAMPLES, SAMPLE_RATE, Waveform, check_not_silent, check_samples, duration_text, resample

if TYPE_CHECKING:
    pass


STATE_RATE = MEL_RATE // 2  # positions per second: the encoder halves


SEGMENT_POSITIONS = SEGMENT_MELS // 2


BEFORE = AUDIO_POSITIONS // 2 - 1  # positions that a window starts before its center


AFTER = AUDIO_POSITIONS - BEFORE - 1


CONTEXT_POSITIONS = 5 * STATE_RATE  # that a state has on both sides at the least, but for the recording's ends


CLOSING_POSITIONS = 7  # 140 ms, over which the states of silence take over from those of speech


HOPS = {"overlapping": SEGMENT_MELS // 2, "upstream": SEGMENT_MELS}
"""Mel frames from the beginning of one segment to that of the next."""


def encode_audio(
    powers: Iterable[Tensor],
    encoder: WhisperEncoder,
    peak: float,
    segments: Segments = "overlapping",
    closed: np.ndarray | None = None,
) -> Iterator[Tensor]:
    """The Whisper states of a recording.

    "upstream" follows its whisper/audio2feature.py: segments of 30 s that know nothing of one another, the last one
    filled up with zeros after the logarithm. "overlapping" takes the same segments and lays another over each cut;
    near a segment's ends the states come from the other one, and in between one fades into the other. In the first
    20 s, and from 10 to 20 s of each further segment, the states are upstream's. It also has true silence before and
    after the recording, where upstream's windows repeat its first and last state.

    Args:
        powers: mel powers (80, n) of the recording, see `mel.mel_power`.
        encoder: runs where its weights are.
        peak: log10 of the recording's largest mel power.
        closed: bool (positions,): where the states are those of true silence; None: nowhere.

    Yields:
        (positions, 5, 384) in order, on the CPU, 50 positions a second. With "overlapping", the first 4 and the last 5
        lie outside of the recording.
    """
    hop = HOPS[segments]
    silence = _encode(log_mel(torch.zeros(MEL_BINS, SEGMENT_MELS), peak), encoder)
    mels = (log_mel(power, peak) for power in powers)
    states = _states(_segments(mels, hop), encoder)
    if closed is not None:
        states = _closed(states, silence, _fade(closed), hop // 2)
    yield from states if hop == SEGMENT_MELS else _joined(states, silence)


def frame_windows(states: Tensor, frames: Sequence[int], rate: Fraction, first: int = 0) -> Tensor:
    """What each frame hears: ten positions around its instant, five states each.

    Args:
        states: (positions, 5, 384).
        frames: numbers of the frames in a clip.
        rate: of the clip, frames a second.
        first: position of `states[0]`; negative where there are states of before the clip.

    Returns:
        (len(frames), 50, 384), position-major; beyond either end the outermost position is repeated.
    """
    centers = torch.tensor([int(frame * STATE_RATE / rate) for frame in frames], device=states.device)
    offsets = torch.arange(AUDIO_POSITIONS, device=states.device) - BEFORE
    positions = (centers[:, None] + offsets - first).clamp(0, len(states) - 1)
    return states[positions].flatten(1, 2)


def segment_count(sample_count: int, segments: Segments) -> int:
    """How many pieces `embed` yields of so many samples at 16 kHz."""
    mels, hop = sample_count // HOP_SAMPLES, HOPS[segments]
    encoded = 1 + max(-(-(mels - SEGMENT_MELS) // hop), 0)
    return encoded if segments == "upstream" else encoded + 3


def _segments(mels: Iterator[Tensor], hop: int) -> Iterator[Tensor]:
    """(80, 3000) each `hop` frames; the last one ends with the recording."""
    held = torch.empty(MEL_BINS, 0)
    for mel in mels:
        held = torch.cat((held, mel), dim=1)
        while held.shape[1] > SEGMENT_MELS:
            yield held[:, :SEGMENT_MELS]
            held = held[:, hop:]
    yield held


def _states(segments: Iterator[Tensor], encoder: WhisperEncoder) -> Iterator[Tensor]:
    for segment in segments:
        held = segment.shape[1]
        yield _encode(F.pad(segment, (0, SEGMENT_MELS - held)), encoder)[: held // 2]


def _encode(segment: Tensor, encoder: WhisperEncoder) -> Tensor:
    with torch.no_grad():
        return encoder(segment[None].to(next(encoder.parameters())))[0].cpu()


def _closed(states: Iterator[Tensor], silence: Tensor, share: Tensor, hop: int) -> Iterator[Tensor]:
    """`silence` in the place of a segment's states by its `share` (positions,) of each position."""
    for number, segment in enumerate(states):
        at = share[number * hop : number * hop + len(segment), None, None]
        yield torch.lerp(segment, silence[: len(segment)], at)


def _fade(closed: np.ndarray) -> Tensor:
    """The share of silence in each position: 1 inside each stretch, rising to it from 0 within the stretch."""
    share, half = torch.from_numpy(closed).float()[None], CLOSING_POSITIONS // 2
    inside = -F.max_pool1d(-F.pad(share, (half, half), value=1.0), CLOSING_POSITIONS, 1)
    return F.avg_pool1d(F.pad(inside, (half, half), mode="replicate"), CLOSING_POSITIONS, 1)[0]


def _joined(states: Iterator[Tensor], silence: Tensor) -> Iterator[Tensor]:
    """Segments that begin each half of one, as one row of states, with silence at its ends as far as a window reaches.

    A state also tells its position in its segment: that of the silence is the nearest to its neighbour's there is.
    """
    half = SEGMENT_POSITIONS // 2
    ramp = torch.linspace(-torch.pi / 2, torch.pi / 2, half - 2 * CONTEXT_POSITIONS).sin().add(1).div(2)
    weight = torch.cat((torch.zeros(CONTEXT_POSITIONS), ramp, torch.ones(CONTEXT_POSITIONS)))[:, None, None]
    segment, before = silence[:0], None
    yield silence[:1].expand(BEFORE, -1, -1)
    for segment in states:
        yield segment[:half] if before is None else torch.lerp(before, segment[:half], weight)
        before = segment[half:]
    yield segment[half:]
    yield silence[torch.arange(len(segment), len(segment) + AFTER).clamp(max=SEGMENT_POSITIONS - 1)]


Segments = Literal["overlapping", "upstream"]
"""How a recording is cut for Whisper, which hears 30 s at a time."""


Silence = Literal["as is", "keep source", "close mouth"]
"""What becomes of frames in which nobody speaks."""


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """How a recording is listened to.

    silence: as it comes out of the network; the source's own frames; or states of true silence.
    threshold_db: above its background, from which sound counts as speech; 1 to 20.
    hangover_s: how long speech is taken to go on after its level has fallen; 0 to 5.
    segments: overlapping, or cut every 30 s as upstream does.
    """

    silence: Silence = "as is"
    threshold_db: float = 4.0
    hangover_s: float = 0.2
    segments: Segments = "overlapping"

    def __post_init__(self) -> None:
        check_choice("silence", self.silence, get_args(Silence))
        check_choice("segments", self.segments, get_args(Segments))
        if not 1.0 <= self.threshold_db <= 20.0:
            raise UsageError(f"the speech threshold must be from 1 to 20 dB, not {self.threshold_db}")
        if not 0.0 <= self.hangover_s <= 5.0:
            raise UsageError(f"the hang time must be from 0 to 5 s, not {self.hangover_s}")


@dataclass(frozen=True, eq=False)
class AudioFeatures:
    """What the lips hear and what the listener hears.

    states: (positions, 5, 384) Whisper states, 50 positions a second, on the CPU.
    waveform: the sound of the finished video, untouched.
    first: position of states[0]; negative where there are states of before the sound.
    spoken: bool (n,), 100 a second: whether the lips follow; elsewhere the source's frames stay. None: everywhere.
    params: how it was listened to.
    """

    states: torch.Tensor
    waveform: Waveform
    first: int = 0
    spoken: np.ndarray | None = None
    params: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        if self.states.ndim != 3 or self.states.shape[1:] != (AUDIO_STATES, AUDIO_WIDTH):
            raise AudioError(f"audio states must be (T, {AUDIO_STATES}, {AUDIO_WIDTH}), not {tuple(self.states.shape)}")
        if self.spoken is not None and not self.spoken.any():
            raise AudioError(
                "no speech stands out of the recording's background: lower the threshold, wire the voice alone as "
                "vocals, or choose 'as is' for silence"
            )

    def speech_frames(self, timeline: Timeline) -> np.ndarray:
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


SHORTEST_SAMPLES = SAMPLE_RATE // 25  # samples; Whisper's spectrogram needs 25 ms, a frame of the video lasts 40


DIRECT_CURRENT = 0.01  # of full scale; less is every recording's, and far below what Whisper resolves


@dataclass(frozen=True, eq=False)
class DrivingAudio:
    """16 kHz mono, made anew, piece by piece, whenever it is iterated: float32 (samples,) tensors.

    source: the recording that drives the lips.
    shift_samples: of the source's own, by which it comes later (or, negative, earlier) than it was recorded.
    sample_count: at 16 kHz; beyond the source's ends there is silence.
    """

    source: Waveform
    shift_samples: int
    sample_count: int

    def __iter__(self) -> Iterator[Tensor]:
        mono = _downmix(self.source, self.shift_samples)
        yield from _pad_or_trim(resample(mono, self.source.rate, SAMPLE_RATE), self.sample_count)

    @property
    def duration_seconds(self) -> Fraction:
        return Fraction(self.sample_count, SAMPLE_RATE)

    def __repr__(self) -> str:
        return f"Heard({float(self.duration_seconds):.3f} s of {self.source!r}, {self.shift_samples} samples later)"


def prepare_driving_audio(
    audio: Waveform, vocals: Waveform | None = None, offset_seconds: Fraction = Fraction(0)
) -> DrivingAudio:
    """What drives the lips of a video that will have the sound `audio`, for as long as that lasts.

    Args:
        audio: the sound of the finished video.
        vocals: drives the lips in its place, from the same instant on; None lets `audio` itself do so.
        offset_seconds: by how much the lips come later; negative: earlier. Exact to the driving recording's sample.

    Raises:
        AudioError: there is nothing to hear, or not within the time that `audio` takes.
    """
    check_samples(audio, "the audio")
    driving, name = (audio, "the audio") if vocals is None else (vocals, "the vocals")
    check_samples(driving, name)
    check_not_silent(driving, name)
    shift = round(offset_seconds * driving.rate)
    if not -driving.duration_seconds < Fraction(shift, driving.rate) < audio.duration_seconds:
        raise AudioError(
            f"an offset of {float(offset_seconds * 1000):g} ms leaves none of {name} ({duration_text(driving)}) "
            f"within the {duration_text(audio)} of the finished sound: use a smaller one"
        )
    count = int(audio.duration_seconds * SAMPLE_RATE + Fraction(1, 2))
    return DrivingAudio(driving, shift, max(count, SHORTEST_SAMPLES))


def _downmix(waveform: Waveform, shift: int) -> Iterator[Tensor]:
    """One channel, `shift` samples later: silence first, or the beginning left out. A direct current is taken off."""
    current = float(waveform.samples.mean())
    if abs(current) < DIRECT_CURRENT:
        current = 0.0
    for first in range(0, shift, BLOCK_SAMPLES):
        yield torch.zeros(min(shift - first, BLOCK_SAMPLES))
    for piece in waveform.samples[:, max(-shift, 0) :].split(BLOCK_SAMPLES, dim=1):
        yield piece.detach().cpu().float().mean(dim=0) - current


def _pad_or_trim(pieces: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """`count` samples: cut, or filled up with silence."""
    left = count
    for piece in pieces:
        if left > 0:
            yield piece[:left]
        left -= len(piece)
    for first in range(0, left, BLOCK_SAMPLES):
        yield torch.zeros(min(left - first, BLOCK_SAMPLES))


class FeatureStep(NamedTuple):
    """One step of listening: at first nothing is known, then where somebody speaks, then states after states."""

    speech: VoiceActivity | None = None
    states: torch.Tensor | None = None


def extract_features(heard: DrivingAudio, encoder: WhisperEncoder, settings: AudioSettings) -> Iterator[FeatureStep]:
    """Go through a recording: for its loudness, for its speech, for its states.

    Memory does not grow with the recording, but for the speech curve (0.5 KB a second).

    Yields:
        `steps(heard, settings)` times.
    """
    known: list[vad.NoiseProfile] = []
    for part in vad.profile_noise(mel_power(heard)):
        known.append(part)
        yield FeatureStep()
    survey = vad.merge(known)
    levels: list[torch.Tensor] = []
    for level in vad.snr_db(mel_power(heard), survey):
        levels.append(level)
        yield FeatureStep()
    found = vad.threshold(torch.cat(levels), settings.threshold_db, settings.hangover_s)
    yield FeatureStep(speech=found)
    closed = _closed_positions(found) if settings.silence == "close mouth" else None
    for states in encode_audio(mel_power(heard), encoder, survey.peak, settings.segments, closed):
        yield FeatureStep(states=states)


def num_feature_steps(heard: DrivingAudio, settings: AudioSettings) -> int:
    """How many steps `listen` takes."""
    blocks = -(-heard.sample_count // (BLOCK_MELS * HOP_SAMPLES))
    return 2 * blocks + 1 + segment_count(heard.sample_count, settings.segments)


def collect_features(
    listened: Iterable[FeatureStep],
    heard: DrivingAudio,
    waveform: Waveform,
    settings: AudioSettings,
    folder: Path | None = None,
) -> tuple[AudioFeatures, VoiceActivity]:
    """Run the listening to its end and keep what it found; states in half precision, 192 KB a second.

    Args:
        waveform: the sound of the finished video.
        folder: for the states of a long recording; None is the system's folder for temporary files.

    Raises:
        AudioError: frames without speech are to keep the source, and there is no other.
    """
    margin = BEFORE + AFTER if settings.segments == "overlapping" else 0
    expected, count, found = heard.sample_count // HOP_SAMPLES // 2 + margin, 0, None
    with TensorBuffer(f"what is heard in {float(heard.duration_seconds):.0f} s of sound", expected, folder) as store:
        for step in listened:
            found = step.speech or found
            if step.states is not None:
                count = store.append(step.states).stop
        kept = store.tensor()
    if found is None or count != expected:
        raise AudioError(f"{count} of {expected} audio states were made: the listening was not run to its end")
    spoken = found.spoken if settings.silence == "keep source" else None
    first = -BEFORE if settings.segments == "overlapping" else 0
    params = {**asdict(settings), "vocals": heard.source is not waveform, "later_by_samples": heard.shift_samples}
    return AudioFeatures(kept, waveform, first, spoken, params), found


def _closed_positions(found: VoiceActivity) -> np.ndarray:
    """bool (positions,): without speech. A position is two frames of the spectrum."""
    count = len(found.spoken) // 2
    return ~(found.spoken[: 2 * count : 2] | found.spoken[1 : 2 * count : 2])
