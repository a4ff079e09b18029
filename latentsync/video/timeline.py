"""Timeline: the original frame that each output frame shows.

Rates are exact `Fraction`s and positions are integers. The code never accumulates seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import UsageError, check_choice

if TYPE_CHECKING:
    from .frame_source import FrameSource

FpsMode = Literal["auto", "25", "source"]
LengthMode = Literal[
    "audio (ping-pong)", "audio (loop)", "audio (hold last frame)", "audio (stretch video)", "video", "shortest"
]

MODEL_RATE = Fraction(25)  # frames per second of the training videos
AUTO_RATES = (23, 31)  # frames per second that "auto" keeps: the model still works well there
STRETCH = (Fraction(4, 5), Fraction(5, 4))
"""Range of audio length / video length that "audio (stretch video)" allows. Beyond it, motion looks wrong."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The frames of the output.

    rate: output frames per second.
    source_index: the original frame that each output frame shows.
    sound_frames: number of frames with audio, from the first frame on. Later frames stay original. None: all frames.
    """

    rate: Fraction
    source_index: tuple[int, ...]
    sound_frames: int | None = None

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise UsageError(f"The frame rate of the output cannot be {self.rate}. Choose a number above 0.")
        if not self.source_index:
            raise UsageError("The output would have no frames. Use a longer video or recording.")

    @property
    def frame_count(self) -> int:
        return len(self.source_index)

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def first(self, seconds: float) -> Timeline:
        """The beginning of the timeline, at least one frame. 0 seconds: the whole timeline."""
        count = min(num_frames(Fraction(seconds), self.rate), self.frame_count) if seconds else self.frame_count
        sound_frames = None if self.sound_frames is None else min(self.sound_frames, count)
        return replace(self, source_index=self.source_index[:count], sound_frames=sound_frames)

    def __repr__(self) -> str:
        return f"Timeline({self.frame_count} frames at {float(self.rate):g} fps)"


def num_frames(duration_seconds: Fraction, rate: Fraction) -> int:
    """The number of frames nearest to `duration_seconds` (halves round up), at least one.

    The function does not round down, because audio of whole samples can be half a sample shorter than its frames.
    """
    return max(1, int(duration_seconds * rate + Fraction(1, 2)))


def output_rate(source_rate: Fraction, mode: FpsMode = "auto") -> Fraction:
    """Frames per second of the output.

    Args:
        mode: "source" keeps the frame rate of the original video. "25" uses the frame rate of the model. "auto" keeps
            rates from 23 to 31 fps and uses 25 for all others.

    Raises:
        UsageError: the mode does not exist.
    """
    check_choice("output_fps", mode, get_args(FpsMode))
    slowest, fastest = AUTO_RATES
    keeps = mode == "source" or (mode == "auto" and slowest <= source_rate <= fastest)
    return source_rate if keeps else MODEL_RATE


def build_timeline(
    source: FrameSource, audio_seconds: Fraction, rate: Fraction = MODEL_RATE, length: LengthMode = "audio (ping-pong)"
) -> Timeline:
    """Assign original frames to the output frames of a recording.

    Args:
        rate: output frames per second, see `output_rate`.
        length: with the "audio" modes, the output is as long as the audio. The timeline cuts a longer video. A shorter
            video plays forwards and backwards (like the official code), repeats, or stays on its last frame. "audio
            (stretch video)" plays the whole video faster or slower. Each output frame then shows the original frame
            with the nearest time. With "video", the output is as long as the video. With "shortest", the output ends
            when the audio or the video ends.

    Raises:
        UsageError: see `check_length`.
    """
    check_length(source, audio_seconds, length)
    video_frames, audio_frames = num_frames(source.duration_seconds, rate), num_frames(audio_seconds, rate)
    count = {"video": video_frames, "shortest": min(video_frames, audio_frames)}.get(length, audio_frames)
    if length == "audio (stretch video)":
        source_seconds = source.duration_seconds / audio_seconds / rate  # of each output frame
        indices = tuple(nearest_frame(source, i * source_seconds) for i in range(count))
    else:
        position = POSITIONS.get(length, hold)
        indices = tuple(source.index_at(position(i, video_frames) / rate) for i in range(count))
    return Timeline(rate, indices, min(count, audio_frames))


def check_length(source: FrameSource, audio_seconds: Fraction, length: LengthMode) -> None:
    """Raise UsageError if the length mode does not exist, or would stretch the video too much."""
    check_choice("length_mode", length, get_args(LengthMode))
    least, most = (ratio * source.duration_seconds for ratio in STRETCH)
    slack = 1 / (2 * source.rate)  # durations are whole frames and whole samples
    if length == "audio (stretch video)" and not least - slack <= audio_seconds <= most + slack:
        ratio = float(audio_seconds / source.duration_seconds)
        raise UsageError(
            f'The audio is {ratio:.3f} times as long as {source.name}. "length_mode" audio (stretch video) allows 0.8 '
            "to 1.25. Choose audio (ping-pong), audio (loop) or audio (hold last frame), or cut the audio or the video."
        )


def nearest_frame(source: FrameSource, seconds: Fraction) -> int:
    """The original frame nearest to `seconds` after the first frame. The later frame if two frames are equally near."""
    shown = source.index_at(seconds)
    following = min(shown + 1, source.frame_count - 1)
    return following if source.time_of(following) - seconds <= abs(seconds - source.time_of(shown)) else shown


def ping_pong(position: int, length: int) -> int:
    """Frame at `position` of a clip of `length` frames that plays forwards, then backwards. Both ends play twice."""
    lap, step = divmod(position, length)
    return step if lap % 2 == 0 else length - 1 - step


def loop(position: int, length: int) -> int:
    """Frame at `position` of a repeated clip of `length` frames."""
    return position % length


def hold(position: int, length: int) -> int:
    """Frame at `position` of a clip of `length` frames. Positions after the end show the last frame."""
    return min(position, length - 1)


POSITIONS: dict[LengthMode, Callable[[int, int], int]] = {
    "audio (ping-pong)": ping_pong,
    "audio (loop)": loop,
    "audio (hold last frame)": hold,
}
"""Frame order of a video that is shorter than the audio."""
