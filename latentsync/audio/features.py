"""Whisper encoder features (50 Hz) and the 10-step window that conditions each video frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from math import ceil, floor, inf
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AudioError, UsageError, check_choice
from ..models.constants import AUDIO_POSITIONS, AUDIO_STATES, AUDIO_WIDTH, MEL_RATE
from ..models.protocols import AudioEncoder
from ..models.whisper import MEL_BINS, SEGMENT_MELS
from ..tensor_buffer import TensorBuffer
from ..video.timeline import Timeline
from . import vad
from .driving_audio import DrivingAudio
from .mel import log_mel, log_peak, mel_power, num_mels
from .mono import Samples
from .turns import Turn
from .vad import VoiceActivity
from .waveform import Waveform

STATE_RATE = MEL_RATE // 2  # positions per second: the encoder halves the rate
SEGMENT_POSITIONS = SEGMENT_MELS // 2
BEFORE = AUDIO_POSITIONS // 2 - 1  # positions of a frame's window before its center
AFTER = AUDIO_POSITIONS - BEFORE - 1
CONTEXT_POSITIONS = 5 * STATE_RATE  # context of each hidden state on both sides, except at the ends of the recording
FADE_POSITIONS = 7  # 140 ms, in which the hidden states of silence replace the speech
SEGMENT_HOPS = {"overlapping": SEGMENT_MELS // 2, "official": SEGMENT_MELS}
"""Mel frames from the start of one segment to the start of the next."""

Segments = Literal["overlapping", "official"]
"""The way to cut a recording into segments of 30 s, which Whisper encodes one at a time."""
Silence = Literal["model", "keep original", "close mouth"]
"""The treatment of frames without speech."""


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """Settings for the extraction of audio features.

    silence: treatment of frames without speech. "model" samples them like all other frames. "keep original" keeps the
        original frames. "close mouth" gives the model the hidden states of digital silence.
    threshold_db: SNR over the noise floor at which speech starts, 1 to 20 dB.
    hangover_s: seconds for which speech continues after the SNR has fallen, 0 to 5.
    segments: "overlapping", or "official": separate segments of 30 s, like the official code.
    """

    silence: Silence = "model"
    threshold_db: float = 4.0
    hangover_s: float = 0.2
    segments: Segments = "overlapping"

    def __post_init__(self) -> None:
        check_choice("silence", self.silence, get_args(Silence))
        check_choice("segments", self.segments, get_args(Segments))
        if not 1.0 <= self.threshold_db <= 20.0:
            raise UsageError(f'"threshold_db" cannot be {self.threshold_db}. Choose a value from 1 to 20.')
        if not 0.0 <= self.hangover_s <= 5.0:
            raise UsageError(f'"hold_ms" cannot be {1000 * self.hangover_s:g}. Choose a value from 0 to 5000.')


@dataclass(frozen=True, eq=False)
class AudioFeatures:
    """Audio conditioning for the UNet, and the waveform to mux.

    hidden_states: (positions, 5, 384) of the Whisper encoder, 50 positions per second, on the CPU.
    waveform: audio of the finished video, unchanged.
    start: position of hidden_states[0]. Negative if there are hidden states from before the recording.
    is_speech: bool (n,), 100 values per second. Frames without speech stay original. None: all frames change.
    params: settings of the extraction, for the run record.
    """

    hidden_states: Tensor
    waveform: Waveform
    start: int = 0
    is_speech: np.ndarray | None = None
    params: Mapping[str, object] = field(default_factory=dict[str, object])

    def __post_init__(self) -> None:
        shape = self.hidden_states.shape
        if self.hidden_states.ndim != 3 or shape[1:] != (AUDIO_STATES, AUDIO_WIDTH):
            raise AudioError("Internal error: the audio features have the wrong size. Please report this.")
        if self.is_speech is not None and not self.is_speech.any():
            raise AudioError(
                'The recording has no speech that is clearly louder than its background. Lower "threshold_db", connect '
                'a recording of only the voice to "vocals", or set "silence" to "model".'
            )

    def during(self, turns: Sequence[Turn]) -> AudioFeatures:
        """The same features for a person who speaks only in `turns`.

        Without turns, all speech in the recording belongs to this person.

        Raises:
            AudioError: a turn begins after the end of the recording, or no turn contains speech.
        """
        if not turns:
            return self
        seconds = self.waveform.duration_seconds
        is_turn = np.zeros(ceil(seconds * MEL_RATE), dtype=bool)
        for turn in turns:
            if turn.start >= seconds:
                raise AudioError(
                    f'"turns" contains {turn}, but the recording is only {float(seconds):.2f} s long. '
                    "Enter times within the recording."
                )
            is_turn[round(turn.start * MEL_RATE) : round(turn.stop * MEL_RATE)] = True
        if self.is_speech is not None:
            is_turn = is_turn[: len(self.is_speech)] & self.is_speech[: len(is_turn)]
        if not is_turn.any():
            raise AudioError(
                f'The recording has no speech in the turns {", ".join(map(str, turns))}. Set "silence" to "model", or '
                'change "turns".'
            )
        return replace(self, is_speech=is_turn, params={**self.params, "turns": ", ".join(map(str, turns))})

    def speech_frames(self, timeline: Timeline) -> np.ndarray:
        """Whether each output frame contains speech: bool (output frames,). False after the end of the audio."""
        if self.is_speech is None:
            return np.ones(timeline.frame_count, dtype=bool)
        speech_before = np.concatenate(([0], np.cumsum(self.is_speech)))
        edges = [frame * MEL_RATE / timeline.rate for frame in range(timeline.frame_count + 1)]
        start = np.minimum([floor(edge) for edge in edges[:-1]], len(self.is_speech))
        stop = np.minimum([ceil(edge) for edge in edges[1:]], len(self.is_speech))
        return speech_before[stop] > speech_before[start]

    def __repr__(self) -> str:
        return f"AudioFeatures({self.hidden_states.shape[0]} positions, {self.waveform!r})"


class FeatureStep(NamedTuple):
    """One step of feature extraction.

    The first steps contain no result. Later steps contain the speech, then the hidden states.
    """

    speech: VoiceActivity | None = None
    hidden_states: Tensor | None = None


def extract_features(
    driving_audio: DrivingAudio, encoder: AudioEncoder, settings: AudioSettings
) -> Iterator[FeatureStep]:
    """Detect speech, then encode the recording. Speech detection needs 27 MB of RAM for each hour of the recording.

    Yields:
        `num_feature_steps` steps, at most 30 s of audio each.
    """
    samples, peak = driving_audio.samples, -inf
    total = num_mels(samples)
    bands = torch.empty(vad.NUM_BANDS, total)
    for start in range(0, total, SEGMENT_MELS):
        power = mel_power(samples, start, min(start + SEGMENT_MELS, total))
        bands[:, start : start + SEGMENT_MELS] = vad.band_power(power)
        peak = max(peak, log_peak(power))
        yield FeatureStep()
    speech = vad.detect_speech(bands, settings.threshold_db, settings.hangover_s)
    yield FeatureStep(speech=speech)
    is_closed = None
    if settings.silence == "close mouth":
        mels = speech.is_speech[: total // 2 * 2]  # two mel frames for each position
        is_closed = ~(mels[::2] | mels[1::2])
    for hidden_states in encode_audio(samples, encoder, peak, settings.segments, is_closed):
        yield FeatureStep(hidden_states=hidden_states)


def detect_speech(samples: Samples, settings: AudioSettings | None = None) -> VoiceActivity:
    """Detect the speech in samples, float32 (n,) at 16 kHz. None takes the defaults of the nodes."""
    settings, total = settings or AudioSettings(), num_mels(samples)
    bands = torch.empty(vad.NUM_BANDS, total)
    for start in range(0, total, SEGMENT_MELS):
        power = mel_power(samples, start, min(start + SEGMENT_MELS, total))
        bands[:, start : start + SEGMENT_MELS] = vad.band_power(power)
    return vad.detect_speech(bands, settings.threshold_db, settings.hangover_s)


def num_feature_steps(driving_audio: DrivingAudio, settings: AudioSettings) -> int:
    """Number of steps that `extract_features` yields."""
    total = num_mels(driving_audio.samples)
    return -(-total // SEGMENT_MELS) + 1 + num_chunks(total, settings.segments)


def collect_features(
    steps: Iterable[FeatureStep], driving_audio: DrivingAudio, settings: AudioSettings, folder: Path | None = None
) -> tuple[AudioFeatures, VoiceActivity]:
    """Run `extract_features` to its end and keep the hidden states in float16, 192 KB for each second of audio.

    Args:
        folder: folder of the temporary file for the hidden states of a long recording. None: the system's temporary
            folder.

    Raises:
        AudioError: the recording has no speech, and `silence` is "keep original".
        StorageError: the folder is full or not writable.
    """
    is_padded = settings.segments == "overlapping"
    expected = num_mels(driving_audio.samples) // 2 + (BEFORE + AFTER if is_padded else 0)
    speech, count = None, 0
    contents = f"the audio features of {float(driving_audio.duration_seconds):.0f} s"
    with TensorBuffer(contents, expected, folder) as buffer:
        for step in steps:
            speech = step.speech or speech
            if step.hidden_states is not None:
                count = buffer.append(step.hidden_states).stop
        hidden_states = buffer.tensor()
    if speech is None or count != expected:
        raise AudioError(
            f"Internal error: feature extraction stopped at {count} of {expected} positions. Please report this."
        )
    params = {**asdict(settings), "vocals": driving_audio.has_vocals}
    is_speech = speech.is_speech if settings.silence == "keep original" else None
    start = -BEFORE if is_padded else 0
    return AudioFeatures(hidden_states, driving_audio.waveform, start, is_speech, params), speech


def frame_windows(hidden_states: Tensor, frames: Sequence[int], rate: Fraction, start: int = 0) -> Tensor:
    """Gather the ten positions around the time of each frame, with five hidden states each.

    Args:
        hidden_states: (positions, 5, 384).
        frames: frame numbers in a clip.
        rate: frames per second of the clip.
        start: position of hidden_states[0]. Negative if there are hidden states from before the clip.

    Returns:
        (len(frames), 50, 384), position-major. Beyond both ends, the first or the last position repeats.
    """
    centers = torch.tensor([int(frame * STATE_RATE / rate) for frame in frames], device=hidden_states.device)
    offsets = torch.arange(AUDIO_POSITIONS, device=hidden_states.device) - BEFORE
    positions = (centers[:, None] + offsets - start).clamp(0, len(hidden_states) - 1)
    return hidden_states[positions].flatten(1, 2)


def encode_audio(
    samples: Tensor,
    encoder: AudioEncoder,
    peak: float,
    segments: Segments = "overlapping",
    is_closed: np.ndarray | None = None,
) -> Iterator[Tensor]:
    """Encode a recording with Whisper.

    "official" follows whisper/audio2feature.py of the official code: separate segments of 30 s, the last one padded
    with zeros after the logarithm. The lips jump between two segments. "overlapping" encodes the same segments, and one
    more segment across each cut. "overlapping" cross-fades the segments, so that no hidden state comes from near the
    end of a segment. In the first 20 s, and from 10 to 20 s of every further segment, both methods give the same hidden
    states. "overlapping" also adds the hidden states of digital silence before and after the recording. The official
    code repeats the first and the last hidden state instead.

    Args:
        samples: float32 (n,) at 16 kHz.
        encoder: runs on the device and in the dtype of its weights.
        peak: `log_peak` of the whole recording.
        is_closed: bool (positions,): positions that get the hidden states of digital silence. None: no position.

    Yields:
        `num_chunks` chunks (positions, 5, 384) in order, on the CPU, 50 positions per second. With "overlapping", the
        first 4 positions are before the recording, and the last 5 are after it.
    """
    silence = _encode_segment(log_mel(torch.zeros(MEL_BINS, SEGMENT_MELS), peak), encoder)
    opacity = None if is_closed is None else _silence_opacity(is_closed)

    def encoded_segments() -> Iterator[Tensor]:
        for start in _segment_starts(num_mels(samples), segments):
            mel = log_mel(mel_power(samples, start, min(start + SEGMENT_MELS, num_mels(samples))), peak)
            hidden_states = _encode_segment(mel, encoder)
            if opacity is not None:
                weight = opacity[start // 2 :][: len(hidden_states), None, None]
                hidden_states = torch.lerp(hidden_states, silence[: len(hidden_states)], weight)
            yield hidden_states

    if segments == "official":
        yield from encoded_segments()
    else:
        yield from _crossfade_segments(encoded_segments(), silence)


def num_chunks(mel_count: int, segments: Segments) -> int:
    """Number of chunks that `encode_audio` yields for a recording of `mel_count` mel frames."""
    num_segments = len(_segment_starts(mel_count, segments))
    return num_segments if segments == "official" else num_segments + 3  # silence, last half segment, silence


def _segment_starts(mel_count: int, segments: Segments) -> range:
    """Mel frames at which segments start. The last segment ends with the recording."""
    hop = SEGMENT_HOPS[segments]
    return range(0, max(mel_count - SEGMENT_MELS, 0) + hop, hop)


def _encode_segment(mel: Tensor, encoder: AudioEncoder) -> Tensor:
    """Log-mel (80, n), n <= 3000 -> hidden states (n // 2, 5, 384)."""
    count = mel.shape[1]
    with torch.no_grad():
        segment = F.pad(mel, (0, SEGMENT_MELS - count))[None]
        return encoder(segment.to(next(encoder.parameters())))[0].cpu()[: count // 2]


def _silence_opacity(is_closed: np.ndarray) -> Tensor:
    """Weight of digital silence at each position: 1 inside each range of `is_closed`, with ramps from 0 at its ends."""
    closed, half = torch.from_numpy(is_closed).float()[None], FADE_POSITIONS // 2
    inside = -F.max_pool1d(-F.pad(closed, (half, half), value=1.0), FADE_POSITIONS, 1)
    return F.avg_pool1d(F.pad(inside, (half, half), mode="replicate"), FADE_POSITIONS, 1)[0]


def _crossfade_segments(segments: Iterator[Tensor], silence: Tensor) -> Iterator[Tensor]:
    """Join segments that overlap by half. Add silence at both ends, because frame windows extend beyond the recording.

    Hidden states include positional embeddings, so the silence comes from the nearest positions.
    """
    half = SEGMENT_POSITIONS // 2
    ramp = torch.linspace(-torch.pi / 2, torch.pi / 2, half - 2 * CONTEXT_POSITIONS).sin().add(1).div(2)
    weight = torch.cat((torch.zeros(CONTEXT_POSITIONS), ramp, torch.ones(CONTEXT_POSITIONS)))[:, None, None]
    segment, previous_half = silence[:0], None
    yield silence[:1].expand(BEFORE, -1, -1)
    for segment in segments:
        yield segment[:half] if previous_half is None else torch.lerp(previous_half, segment[:half], weight)
        previous_half = segment[half:]
    yield segment[half:]
    yield silence[torch.arange(len(segment), len(segment) + AFTER).clamp(max=SEGMENT_POSITIONS - 1)]
