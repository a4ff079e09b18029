"""When each frame of a video stream is shown, and from which frames decoding can begin."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from re import fullmatch
from typing import TYPE_CHECKING

from ..errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream


USUAL_RATES = tuple(Fraction(n) / slow for n in (24, 25, 30, 48, 50, 60, 120) for slow in (1, Fraction(1001, 1000)))


LIVE_FORMATS = ("mpegts",)  # recordings that may stop anywhere, and are whole all the same


TAIL_SECONDS = 1  # that a header may name beyond the last frame


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
        """How long the frames `first` up to, without, `stop` are shown."""
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
        """The last position up to and with `i` from which decoding can begin; the first of all if none is."""
        return self.keys[max(bisect_right(self.keys, i) - 1, 0)]


def index_frames(container: InputContainer, stream: VideoStream, name: str) -> FrameIndex:
    """The index of a stream, from the timestamps of its packets: nothing is decoded, everything is read once.

    Raises:
        MediaError: no frames, frames without timestamps, or a file that breaks off.
    """
    if container.format.name == "avi" and _is_reordered(stream):
        raise MediaError(f"{name}: an AVI does not say when its B-frames are shown; convert it to mp4")
    ends, keys = _timestamps(container, stream, name)
    pts = sorted(shown_at for shown_at in ends if not keys or shown_at >= min(keys))
    if not pts:
        raise MediaError(f"{name}: its video holds no frame: it is cut short or damaged; copy or export it again")
    tick = stream.time_base or Fraction(1, 1000)
    declared = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    rate, is_constant = _rate(pts, tick, declared)
    if not rate:
        apart = float((pts[-1] - pts[0]) * tick) / (len(pts) - 1)
        raise MediaError(
            f"{name}: its timestamps say that its frames are {apart:.0f} s apart: they are damaged; export it again"
        )
    end = max(ends[pts[-1]], pts[-1] + round(1 / (rate * tick)), pts[-1] + 1)
    starts = sorted({bisect_left(pts, key) for key in keys if key <= pts[-1]})
    index = FrameIndex(pts, end, starts or [0], tick, rate, is_constant)
    _check_whole(container, stream, index, name)
    return index


def _timestamps(container: InputContainer, stream: VideoStream, name: str) -> tuple[dict[int, int], set[int]]:
    """When each frame begins -> when it ends, and when the keyframes begin, those cut away by an edit too."""
    ends: dict[int, int] = {}
    keys: set[int] = set()
    broken = False
    for packet in container.demux(stream):
        if packet.size == 0 or _is_hidden(packet, stream):
            continue
        broken = packet.is_corrupt
        if packet.pts is None and not broken:
            raise MediaError(f"{name}: its frames carry no timestamps; convert it to mp4")
        if packet.pts is None:
            continue
        if packet.is_keyframe:
            keys.add(packet.pts)
        if not packet.is_discard:
            ends[packet.pts] = packet.pts + (packet.duration or 0)
    if broken and container.format.name not in LIVE_FORMATS:
        raise _cut_short(name, len(ends))
    return ends, keys


def _is_reordered(stream: VideoStream) -> bool:
    return stream.codec_context.name in ("h264", "hevc") and bool(stream.codec_context.has_b_frames)


def _is_hidden(packet: Packet[VideoStream], stream: VideoStream) -> bool:
    """VP8's alternate reference pictures have packets of their own, and are never shown (RFC 6386, 9.1)."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] >> 4 & 1


def _check_whole(container: InputContainer, stream: VideoStream, index: FrameIndex, name: str) -> None:
    """Refuse a file that ends before what its own index or header names."""
    named_bytes = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if named_bytes > container.size or _stated_seconds(container, stream) > index.end * index.tick + TAIL_SECONDS:
        raise _cut_short(name, len(index.pts))


def _stated_seconds(container: InputContainer, stream: VideoStream) -> Fraction:
    """When the last frame ends by Matroska's own tag; 0 where there is none."""
    tag = stream.metadata.get("DURATION", "") if "matroska" in container.format.name else ""
    stated = fullmatch(r"(\d+):(\d+):(\d+\.\d+)", tag)
    if stated is None:
        return Fraction(0)
    hours, minutes, seconds = map(Fraction, stated.groups())
    return 3600 * hours + 60 * minutes + seconds


def _cut_short(name: str, frames: int) -> MediaError:
    return MediaError(f"{name}: is cut short after {frames} frames; copy or export it again")


def _rate(pts: Sequence[int], tick: Fraction, declared: Sequence[Fraction]) -> tuple[Fraction, bool]:
    """The rate that every timestamp keeps, and True; or else the mean rate, and False: 0 of frames half an hour apart.

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
