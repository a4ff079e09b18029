"""When each frame of a video stream is shown, and from which frames decoding can begin."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

from .errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

USUAL_RATES = tuple(Fraction(n) / slow for n in (24, 25, 30, 48, 50, 60, 120) for slow in (1, Fraction(1001, 1000)))
FALLBACK_RATE = Fraction(25)  # frames per second of a single picture that states none


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """When each frame of a stream is shown.

    pts: rising timestamps in ticks.
    end: tick at which the last frame ends.
    keys: positions in `pts` from which decoding can begin, rising.
    tick: seconds per tick.
    is_constant: every timestamp is within a tick of its place at `rate`.
    """

    pts: list[int]
    end: int
    keys: list[int]
    tick: Fraction
    rate: Fraction
    is_constant: bool

    def seconds_between(self, first: int, stop: int) -> Fraction:
        until = self.end if stop == len(self.pts) else self.pts[stop]
        return (until - self.pts[first]) * self.tick

    def at(self, first: int, seconds: Fraction) -> int:
        """The frame on display `seconds` after frame `first` appeared; -1 before all."""
        return bisect_right(self.pts, self.pts[first] + floor(seconds / self.tick) + self._forgiven_ticks) - 1

    def beginning(self, seconds: Fraction) -> int:
        """The first frame that appears `seconds` or more after the very first; one past the last if none does."""
        return bisect_left(self.pts, self.pts[0] + ceil(seconds / self.tick) - self._forgiven_ticks)

    @property
    def _forgiven_ticks(self) -> int:
        """Matroska rounds timestamps to 1 ms, so a frame and the one it is counted from are a tick off at most.

        Where a tick is a sizeable part of a frame, timestamps are not rounded.
        """
        return 1 if self.tick * self.rate < Fraction(1, 4) else 0

    def key_before(self, i: int) -> int:
        return self.keys[max(bisect_right(self.keys, i) - 1, 0)]


def index_frames(container: InputContainer, stream: VideoStream, name: str) -> FrameIndex:
    """The index of a stream, from the timestamps of its packets: nothing is decoded, everything is read once.

    Raises:
        MediaError: no frames, frames without timestamps, or a file that breaks off.
    """
    ends: dict[int, int] = {}
    keys: set[int] = set()
    for packet in container.demux(stream):
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.is_corrupt:
            raise MediaError(f"{name}: is cut short or damaged after {len(ends)} frames; copy or export it again")
        if packet.pts is None:
            raise MediaError(f"{name}: its frames carry no timestamps; convert it to mp4")
        ends[packet.pts] = packet.pts + (packet.duration or 0)
        if packet.is_keyframe:
            keys.add(packet.pts)
    if not ends:
        raise MediaError(f"{name}: its video holds no frame: it is cut short or damaged; copy or export it again")
    pts = sorted(ends)
    tick = stream.time_base or Fraction(1, 1000)
    declared = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    rate, is_constant = _rate(pts, tick, declared)
    end = max(ends[pts[-1]], pts[-1] + round(1 / (rate * tick)), pts[-1] + 1)
    starts = [i for i, value in enumerate(pts) if value in keys]
    return FrameIndex(pts, end, starts or [0], tick, rate, is_constant)


def _rate(pts: Sequence[int], tick: Fraction, declared: Sequence[Fraction]) -> tuple[Fraction, bool]:
    """The rate that every timestamp keeps, and True; or else the mean rate, and False.

    Rounded timestamps fit many rates and spoil the declared one (59.94 becomes 19001/317): the nearest usual one is
    meant, unless the declared one is kept to the tick.
    """
    if len(pts) == 1:
        return (declared[0] if declared else FALLBACK_RATE), True
    usual = [min(USUAL_RATES, key=lambda rate: abs(rate - stated)) for stated in declared]
    for rates, off_ticks in ((declared, 0), (usual, 1), (declared, 1)):
        for rate in rates:
            if _keeps(pts, 1 / (rate * tick), off_ticks):
                return rate, True
    mean = Fraction(len(pts) - 1, pts[-1] - pts[0]) / tick
    return mean.limit_denominator(1001), False


def _keeps(pts: Sequence[int], step: Fraction, off_ticks: int) -> bool:
    """Whether timestamps are `step` ticks apart, each at most `off_ticks` off. Integers: films have many frames."""
    up, down = step.numerator, step.denominator
    return all(abs((value - pts[0]) * down - i * up) <= off_ticks * down for i, value in enumerate(pts))
