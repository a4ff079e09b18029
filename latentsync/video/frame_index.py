"""Timestamps and keyframes of a video stream, and its frame rate."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, floor
from re import fullmatch
from typing import TYPE_CHECKING

from ..errors import MediaError
from .container import decode_packets

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

USUAL_RATES = tuple(Fraction(n) / slow for n in (24, 25, 30, 48, 50, 60, 120) for slow in (1, Fraction(1001, 1000)))
LIVE_FORMATS = ("mpegts",)  # recordings in these formats may stop at any packet
TAIL_SECONDS = 1  # time that a header may add after the last frame
FALLBACK_RATE = Fraction(25)  # frames per second of a still image that declares none


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The times at which the frames of a stream appear.

    pts: increasing timestamps in units of `time_base`.
    by_dts: whether the container stores only decoding times. The decoder then gives each frame the time of its packet.
    decoder_pts: the timestamp that the decoder gives to each frame. This timestamp equals `pts`, unless `by_dts` is
        true and frames are reordered.
    end: timestamp at which the last frame ends.
    keyframes: increasing positions in `pts` at which decoding can start.
    time_base: unit of the timestamps, in seconds.
    rate: frames per second. For a variable frame rate, the value is the mean.
    is_constant: whether every timestamp fits a constant `rate`, within one `time_base`.
    """

    pts: list[int]
    by_dts: bool
    decoder_pts: list[int]
    end: int
    keyframes: list[int]
    time_base: Fraction
    rate: Fraction
    is_constant: bool

    def position_of(self, decoder_pts: int | None) -> int | None:
        """Position of a decoded frame, or None if it is not in the index."""
        if decoder_pts is None:
            return None
        if self.decoder_pts is not self.pts:
            return self._positions.get(decoder_pts)
        position = bisect_left(self.pts, decoder_pts)
        return position if self.pts[position : position + 1] == [decoder_pts] else None

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {timestamp: position for position, timestamp in enumerate(self.decoder_pts)}

    def seconds_between(self, start: int, stop: int) -> Fraction:
        """The display time of the frames `start` to `stop` (exclusive), in seconds."""
        end = self.end if stop == len(self.pts) else self.pts[stop]
        return (end - self.pts[start]) * self.time_base

    def index_at(self, start: int, seconds: Fraction) -> int:
        """The frame that is displayed `seconds` after frame `start` appeared. -1: before the first frame."""
        return bisect_right(self.pts, self.pts[start] + floor(seconds / self.time_base) + self._tolerance) - 1

    def first_from(self, seconds: Fraction) -> int:
        """The first frame that appears `seconds` or more after frame 0.

        The number of frames if there is no such frame.
        """
        return bisect_left(self.pts, self.pts[0] + ceil(seconds / self.time_base) - self._tolerance)

    @property
    def _tolerance(self) -> int:
        """Rounding error of a difference of two timestamps, in units of `time_base`.

        Matroska rounds timestamps to 1 ms. If the time base is a quarter of a frame or longer, the timestamps are
        exact.
        """
        return 1 if self.time_base * self.rate < Fraction(1, 4) else 0

    def keyframe_before(self, i: int) -> int:
        """The last keyframe at or before frame `i`, or else the first keyframe."""
        return self.keyframes[max(bisect_right(self.keyframes, i) - 1, 0)]


def index_frames(container: InputContainer, stream: VideoStream, name: str) -> FrameIndex:
    """Index a stream by the timestamps of its packets. The function decodes only an AVI with reordered frames.

    Raises:
        MediaError: the stream has no frames, has frames without timestamps, or is incomplete.
    """
    by_dts = container.format.name == "avi"
    if by_dts and stream.codec_context.has_b_frames:
        decoder_pts, pts, keyframe_pts = _decode_order(container, stream)
        end = 0
    else:
        ends, keyframe_pts = _read_timestamps(container, stream, name, by_dts)
        pts = sorted(timestamp for timestamp in ends if not keyframe_pts or timestamp >= min(keyframe_pts))
        decoder_pts, end = pts, ends[pts[-1]] if pts else 0
    if not pts:
        raise MediaError(f"{name} has no video frames. The file may be damaged. Copy or export the video again.")
    time_base = stream.time_base or Fraction(1, 1000)
    declared = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    rate, is_constant = _estimate_rate(pts, time_base, declared)
    if not rate:
        spacing = float((pts[-1] - pts[0]) * time_base) / (len(pts) - 1)
        raise MediaError(f"{name} has wrong timestamps. The frames are {spacing:.0f} s apart. Export the video again.")
    end = max(end, pts[-1] + round(1 / (rate * time_base)), pts[-1] + 1)
    if decoder_pts is pts:
        keyframes = sorted({bisect_left(pts, timestamp) for timestamp in keyframe_pts if timestamp <= pts[-1]})
    else:
        keyframes = [position for position, timestamp in enumerate(decoder_pts) if timestamp in keyframe_pts]
    index = FrameIndex(pts, by_dts, decoder_pts, end, keyframes or [0], time_base, rate, is_constant)
    _check_complete(container, stream, index, name)
    return index


def _read_timestamps(
    container: InputContainer, stream: VideoStream, name: str, by_dts: bool
) -> tuple[dict[int, int], set[int]]:
    """Start -> end of each frame, and the start of each keyframe, also of keyframes that an edit list hides."""
    ends: dict[int, int] = {}
    keyframe_pts: set[int] = set()
    is_corrupt = False
    for packet in container.demux(stream):
        if packet.size == 0 or _is_hidden(packet, stream):
            continue
        is_corrupt = packet.is_corrupt
        if by_dts:
            packet.pts = packet.dts
        if packet.pts is None and not is_corrupt:
            raise MediaError(f"{name} has frames without timestamps. Convert the video to MP4.")
        if packet.pts is None:
            continue
        if packet.is_keyframe:
            keyframe_pts.add(packet.pts)
        if not packet.is_discard:
            ends[packet.pts] = packet.pts + (packet.duration or 0)
    if is_corrupt and container.format.name not in LIVE_FORMATS:
        raise _incomplete(name, len(ends))
    return ends, keyframe_pts


def _decode_order(container: InputContainer, stream: VideoStream) -> tuple[list[int], list[int], set[int]]:
    """Decode the whole stream to learn the display order of its frames.

    Returns:
        The decoding time of each frame's packet in display order, the display times, and the decoding times of
        keyframes.
    """
    keyframe_dts: set[int] = set()

    def packets() -> Iterator[Packet[VideoStream]]:
        for packet in container.demux(stream):
            if packet.is_keyframe and packet.dts is not None:
                keyframe_dts.add(packet.dts)
            yield packet

    stream.thread_type = "AUTO"
    order = [frame.pts for frame in decode_packets(packets(), by_dts=True) if frame.pts is not None]
    rising = sorted(order)
    rank = {timestamp: position for position, timestamp in enumerate(rising)}
    # The decoder returns a frame after it has read `delay` more packets. Like FFmpeg, use that packet's time.
    delay = max((rank[timestamp] - position for position, timestamp in enumerate(order)), default=0)
    step = rising[-1] - rising[-2] if len(rising) > 1 else 1
    return order, [*rising[delay:], *(rising[-1] + step * (i + 1) for i in range(delay))], keyframe_dts


def _is_hidden(packet: Packet[VideoStream], stream: VideoStream) -> bool:
    """Alternate reference frames of VP8 have their own packets and are never displayed (RFC 6386, 9.1)."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] >> 4 & 1


def _check_complete(container: InputContainer, stream: VideoStream, index: FrameIndex, name: str) -> None:
    """Raise MediaError if a file ends earlier than its index or header says."""
    entries = getattr(stream, "index_entries", ())  # PyAV 17 and newer
    needed_bytes = max((entry.pos + entry.size for entry in entries), default=0)
    end_seconds = index.end * index.time_base
    if needed_bytes > container.size or _declared_end_seconds(container, stream) > end_seconds + TAIL_SECONDS:
        raise _incomplete(name, len(index.pts))


def _declared_end_seconds(container: InputContainer, stream: VideoStream) -> Fraction:
    """End of the last frame according to Matroska's DURATION tag, or 0 without one."""
    tag = stream.metadata.get("DURATION", "") if "matroska" in container.format.name else ""
    match = fullmatch(r"(\d+):(\d+):(\d+\.\d+)", tag)
    if match is None:
        return Fraction(0)
    hours, minutes, seconds = map(Fraction, match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _incomplete(name: str, frames: int) -> MediaError:
    return MediaError(f"{name} is incomplete, and ends after {frames} frames. Copy or export the video again.")


def _estimate_rate(pts: Sequence[int], time_base: Fraction, declared: Sequence[Fraction]) -> tuple[Fraction, bool]:
    """The constant rate that fits every timestamp, and True. If no rate fits, the mean rate, and False.

    The mean is 0 if frames are half an hour apart. Rounded timestamps fit many rates, and FFmpeg may declare a wrong
    rate (19001/317 for 59.94). Therefore the nearest usual rate comes first, unless the declared rate fits exactly.
    """
    if len(pts) == 1:
        return (declared[0] if declared else FALLBACK_RATE), True
    usual = [min(USUAL_RATES, key=lambda rate: abs(rate - stated)) for stated in declared]
    for rates, tolerance in ((declared, 0), (usual, 1), (declared, 1)):
        for rate in rates:
            if _is_evenly_spaced(pts, 1 / (rate * time_base), tolerance):
                return rate, True
    mean = Fraction(len(pts) - 1, pts[-1] - pts[0]) / time_base
    return mean.limit_denominator(1001), False


def _is_evenly_spaced(pts: Sequence[int], step: Fraction, tolerance: int) -> bool:
    """Whether every timestamp is within `tolerance` of a multiple of `step`. Integers keep long films exact."""
    up, down = step.numerator, step.denominator
    return all(abs((timestamp - pts[0]) * down - i * up) <= tolerance * down for i, timestamp in enumerate(pts))
