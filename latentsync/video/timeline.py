"""Time: which source frame each output frame shows, and which frames are sampled together.

Rates are exact `Fraction`s and positions are integers; seconds are compared, never accumulated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import UsageError, check_choice

if TYPE_CHECKING:
    from .frame_source import FrameSource


FpsMode = Literal["auto", "25", "source"]


LengthMode = Literal["ping-pong", "loop", "hold", "video", "shortest"]


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

    def __repr__(self) -> str:
        return f"Timeline({self.frame_count} frames at {float(self.rate):g} fps)"


def num_frames(duration_seconds: Fraction, rate: Fraction) -> int:
    """How many frames last `duration_seconds`: the nearest whole number (halves up), and at least one.

    Nearest, not floor: sound cut to whole samples is up to half a sample short of its frames.
    """
    return max(1, int(duration_seconds * rate + Fraction(1, 2)))


def output_rate(source_rate: Fraction, choice: FpsMode = "auto") -> Fraction:
    """Frames per second of the output: the source's, the model's 25, or the source's where the model bears it.

    Raises:
        UsageError: no such choice.
    """
    check_choice("fps", choice, get_args(FpsMode))
    slowest, fastest = NEAR_MODEL_RATE
    keeps = choice == "source" or (choice == "auto" and slowest <= source_rate <= fastest)
    return source_rate if keeps else MODEL_RATE


def build_timeline(
    source: FrameSource, sound_seconds: Fraction, rate: Fraction = MODEL_RATE, length: LengthMode = "ping-pong"
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
    check_choice("length", length, get_args(LengthMode))
    held, heard = num_frames(source.duration_seconds, rate), num_frames(sound_seconds, rate)
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


POSITIONS: dict[LengthMode, Callable[[int, int], int]] = {"ping-pong": ping_pong, "loop": loop, "hold": hold}
"""How a source plays on that is shorter than its sound; any other length never outlasts it."""
