"""From a recording to all that the sampler needs to know of it: its spectrum, where somebody speaks, its states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import audio, mel, speech
from .errors import AudioError
from .models.whisper import WhisperEncoder
from .sound import Heard
from .speech import Speech
from .store import TensorStore
from .types import AudioFeatures, HearingSettings, Waveform


class Listened(NamedTuple):
    """One step of listening: at first nothing is known, then where somebody speaks, then states after states."""

    speech: Speech | None = None
    states: torch.Tensor | None = None


def listen(heard: Heard, encoder: WhisperEncoder, settings: HearingSettings) -> Iterator[Listened]:
    """Go through a recording: for its loudness, for its speech, for its states.

    Memory does not grow with the recording, but for the speech curve (0.5 KB a second).

    Yields:
        `steps(heard, settings)` times.
    """
    known: list[speech.Survey] = []
    for part in speech.survey(mel.powers(heard)):
        known.append(part)
        yield Listened()
    survey = speech.whole(known)
    levels: list[torch.Tensor] = []
    for level in speech.levels(mel.powers(heard), survey):
        levels.append(level)
        yield Listened()
    found = speech.gate(torch.cat(levels), settings.threshold_db, settings.hang_seconds)
    yield Listened(speech=found)
    closed = _closed(found) if settings.silence == "close mouth" else None
    for states in audio.embed(mel.powers(heard), encoder, survey.peak, settings.segments, closed):
        yield Listened(states=states)


def steps(heard: Heard, settings: HearingSettings) -> int:
    """How many steps `listen` takes."""
    blocks = -(-heard.sample_count // (mel.BLOCK_MELS * mel.HOP_SAMPLES))
    return 2 * blocks + 1 + audio.segment_count(heard.sample_count, settings.segments)


def remember(
    listened: Iterable[Listened],
    heard: Heard,
    waveform: Waveform,
    settings: HearingSettings,
    folder: Path | None = None,
) -> tuple[AudioFeatures, Speech]:
    """Run the listening to its end and keep what it found; states in half precision, 192 KB a second.

    Args:
        waveform: the sound of the finished video.
        folder: for the states of a long recording; None is the system's folder for temporary files.

    Raises:
        AudioError: frames without speech are to keep the source, and there is no other.
    """
    margin = audio.BEFORE + audio.AFTER if settings.segments == "overlapping" else 0
    expected, count, found = heard.sample_count // mel.HOP_SAMPLES // 2 + margin, 0, None
    with TensorStore(f"what is heard in {float(heard.duration_seconds):.0f} s of sound", expected, folder) as store:
        for step in listened:
            found = step.speech or found
            if step.states is not None:
                count = store.append(step.states).stop
        kept = store.finished()
    if found is None or count != expected:
        raise AudioError(f"{count} of {expected} audio states were made: the listening was not run to its end")
    spoken = found.spoken if settings.silence == "keep source" else None
    first = -audio.BEFORE if settings.segments == "overlapping" else 0
    made_with = {**asdict(settings), "vocals": heard.source is not waveform, "later_by_samples": heard.shift_samples}
    return AudioFeatures(kept, waveform, first, spoken, made_with), found


def _closed(found: Speech) -> np.ndarray:
    """bool (positions,): without speech. A position is two frames of the spectrum."""
    count = len(found.spoken) // 2
    return ~(found.spoken[: 2 * count : 2] | found.spoken[1 : 2 * count : 2])
