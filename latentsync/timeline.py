"""Time: which source frame each output frame shows, and which frames are sampled together.

Rates are exact `Fraction`s and positions are integers; seconds are compared, never accumulated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from .errors import UsageError
from .spec import WINDOW_FRAMES

if TYPE_CHECKING:
    from .media import FrameSource

MODEL_RATE = Fraction(25)  # frames per second that the model was trained on
FADE_FRAMES = 3


@dataclass(frozen=True, slots=True)
class Timeline:
    """The output clip's frames.

    rate: output frames per second.
    source_index: per output frame, the source frame that it shows.
    """

    rate: Fraction
    source_index: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise UsageError(f"a frame rate must be positive, not {self.rate}")
        if not self.source_index:
            raise UsageError("the output would have no frame")

    @property
    def frame_count(self) -> int:
        return len(self.source_index)

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def __repr__(self) -> str:
        return f"Timeline({self.frame_count} frames at {float(self.rate):g} fps)"


def frames_in(duration_seconds: Fraction, rate: Fraction) -> int:
    """How many frames last `duration_seconds`: the nearest whole number (halves up), and at least one.

    Nearest, not floor: sound cut to whole samples is up to half a sample short of its frames.
    """
    return max(1, int(duration_seconds * rate + Fraction(1, 2)))


def ping_pong(position: int, length: int) -> int:
    """Where a clip of `length` frames stands at `position` if played forwards, then backwards, ends repeated."""
    lap, step = divmod(position, length)
    return step if lap % 2 == 0 else length - 1 - step


def lay_out(source: FrameSource, sound_seconds: Fraction, rate: Fraction = MODEL_RATE) -> Timeline:
    """The timeline of a source that must last as long as the sound.

    A longer source is cut; a shorter one is played forwards and backwards, as upstream does.
    """
    held = frames_in(source.duration_seconds, rate)
    positions = (ping_pong(i, held) for i in range(frames_in(sound_seconds, rate)))
    return Timeline(rate, tuple(source.index_at(position / rate) for position in positions))


def windows(active: Sequence[bool], longest: int = WINDOW_FRAMES) -> Iterator[range]:
    """Half-open ranges of consecutive active output frames, each of at most `longest` frames."""
    for is_active, run in groupby(range(len(active)), key=lambda i: bool(active[i])):
        if is_active:
            frames = list(run)
            for first in range(frames[0], frames[-1] + 1, longest):
                yield range(first, min(first + longest, frames[-1] + 1))


def faded(active: np.ndarray, frames: int = FADE_FRAMES) -> np.ndarray:
    """How strongly the new lips are laid over each output frame.

    Args:
        active: bool (output frames,): whether there are new lips.
        frames: over which they come and go, within their own stretch, so that the others stay untouched.

    Returns:
        float32 (output frames,): 0 where they are not, 1 where they are and no frame without them is near.
    """
    untouched = np.flatnonzero(~active)
    if not len(untouched):
        return np.ones(len(active), np.float32)
    here = np.arange(len(active))
    after = np.searchsorted(untouched, here)
    nearest = untouched[[(after - 1).clip(0), after.clip(max=len(untouched) - 1)]]
    distance = np.abs(nearest - here).min(axis=0)
    return (distance / (frames + 1)).clip(max=1).astype(np.float32)
