"""Time: which source frame each output frame shows, and which frames are sampled together.

Rates are exact `Fraction`s and positions are integers; seconds are compared, never accumulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import TYPE_CHECKING, Literal, get_args

from .errors import UsageError, check_choice
from .spec import WINDOW_FRAMES

if TYPE_CHECKING:
    from .media import FrameSource
    from .types import Waveform

RateChoice = Literal["auto", "25", "source"]
Length = Literal["ping-pong", "loop", "hold", "video", "shortest"]

MODEL_RATE = Fraction(25)  # frames per second that the model was trained on
NEAR_MODEL_RATE = (23, 31)  # frames per second at which the model still speaks well: "auto" keeps them


@dataclass(frozen=True, slots=True)
class Timeline:
    """The output clip's frames.

    rate: output frames per second.
    source_index: per output frame, the source frame that it shows.
    sound_frames: how many frames the sound covers, from the first; those after it keep the source. None is all.
    """

    rate: Fraction
    source_index: tuple[int, ...]
    sound_frames: int | None = None

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

    def fit(self, waveform: Waveform) -> Waveform:
        """Sound that lasts as many frames as it is; any other is cut, or filled up with silence."""
        if frames_in(waveform.duration_seconds, self.rate) == self.frame_count:
            return waveform
        return waveform.lasting(self.duration_seconds)

    def __repr__(self) -> str:
        return f"Timeline({self.frame_count} frames at {float(self.rate):g} fps)"


def frames_in(duration_seconds: Fraction, rate: Fraction) -> int:
    """How many frames last `duration_seconds`: the nearest whole number (halves up), and at least one.

    Nearest, not floor: sound cut to whole samples is up to half a sample short of its frames.
    """
    return max(1, int(duration_seconds * rate + Fraction(1, 2)))


def output_rate(source_rate: Fraction, choice: RateChoice = "auto") -> Fraction:
    """Frames per second of the output: the source's, the model's 25, or the source's where the model bears it.

    Raises:
        UsageError: no such choice.
    """
    check_choice("fps", choice, get_args(RateChoice))
    slowest, fastest = NEAR_MODEL_RATE
    keeps = choice == "source" or (choice == "auto" and slowest <= source_rate <= fastest)
    return source_rate if keeps else MODEL_RATE


def lay_out(
    source: FrameSource, sound_seconds: Fraction, rate: Fraction = MODEL_RATE, length: Length = "ping-pong"
) -> Timeline:
    """The timeline of a source that is given a sound.

    Args:
        rate: output frames per second, see `output_rate`.
        length: "ping-pong", "loop" and "hold" last as long as the sound: a longer source is cut, a shorter one is
            played forwards and backwards (as upstream does), over again, or rests on its last frame. "video" lasts
            as long as the source, and frames after the sound keep it. "shortest" ends with whichever ends first.

    Raises:
        UsageError: no such length.
    """
    check_choice("length", length, get_args(Length))
    held, heard = frames_in(source.duration_seconds, rate), frames_in(sound_seconds, rate)
    count = {"video": held, "shortest": min(held, heard)}.get(length, heard)
    position = POSITIONS.get(length, hold)
    indices = tuple(source.index_at(position(i, held) / rate) for i in range(count))
    return Timeline(rate, indices, min(count, heard))


def ping_pong(position: int, length: int) -> int:
    """Where a clip of `length` frames stands at `position` if played forwards, then backwards, ends repeated."""
    lap, step = divmod(position, length)
    return step if lap % 2 == 0 else length - 1 - step


def loop(position: int, length: int) -> int:
    """Where a clip of `length` frames stands at `position` if played over and over."""
    return position % length


def hold(position: int, length: int) -> int:
    """Where a clip of `length` frames stands at `position` if its last frame stays."""
    return min(position, length - 1)


POSITIONS: dict[Length, Callable[[int, int], int]] = {"ping-pong": ping_pong, "loop": loop, "hold": hold}
"""How a source plays on that is shorter than its sound; any other length never outlasts it."""


def windows(active: Sequence[int], longest: int = WINDOW_FRAMES, overlap: int = 0) -> Iterator[range]:
    """Half-open ranges of consecutive output frames that are sampled together, each of at most `longest` frames.

    Args:
        active: per output frame 0 (or False) where nothing is sampled; where it changes, so does the window.
        overlap: frames that a window has in common with the one before it, less than `longest`.
    """
    for is_active, run in groupby(range(len(active)), key=lambda i: int(active[i])):
        if is_active:
            frames = list(run)
            end = frames[-1] + 1
            for first in range(frames[0], max(frames[0] + 1, end - overlap), longest - overlap):
                yield range(first, min(first + longest, end))
