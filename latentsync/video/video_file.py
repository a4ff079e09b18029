"""Frames of a video file with exact random access by frame index."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MediaError, UsageError
from .color import HD_SIZE, UNREADABLE_MATRICES, UNSPECIFIED, ColorSpace, to_float32
from .container import decode_packets, media_errors, open_container, picture_streams, preferred_stream, source_name
from .decoder import FrameReader, alpha_decoder, display_matrix, has_alpha, is_high_bit_depth, swaps_axes, to_rgb
from .frame_index import FrameIndex, index_frames
from .frame_source import check_index, describe
from .pixel_converter import PixelConverter

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

MIN_ASPECT = Fraction(1, 8)  # smallest plausible ratio of a pixel's width and height, or height and width


class VideoFile:
    """The frames of a video file, or of a part of it.

    Opening reads every packet, but decodes only one frame. Opening an AVI with reordered frames decodes all frames.
    Several reads may run at the same time.

    `content` is the path of the file, or its bytes.

    Args:
        source: path, or the bytes of the file. The read position of a byte stream has no effect and does not change.
        start_seconds: start of the part, counted from the first frame. The part contains the frames that appear at this
            time or later.
        duration_seconds: length of the part. None: up to the end.

    Raises:
        MediaError: the file does not exist, has no video, or is damaged.
        UsageError: the part contains no frame.
    """

    def __init__(
        self,
        source: str | Path | BytesIO,
        *,
        start_seconds: Fraction = Fraction(0),
        duration_seconds: Fraction | None = None,
    ) -> None:
        self.name = source_name(source)
        self.content = source.getvalue() if isinstance(source, BytesIO) else Path(source)
        with media_errors(self.name, MediaError, "a video"), open_container(self.content) as container:
            if container.format.name == "webp_anim":
                raise _animated_webp(self.name)
            index = index_frames(container, _video_stream(container, self.name), self.name)
        with media_errors(self.name, MediaError, "a video"), open_container(self.content) as container:
            stream = _video_stream(container, self.name)
            packets = container.demux(stream)
            frame = next(decode_packets(packets, alpha_decoder(stream), by_dts=index.by_dts), None)
            if frame is None:
                raise _undecodable(container, self.name, len(index.pts))
            self._set_properties(frame, stream)
        self._index = index
        self._part = _trim_range(index, start_seconds, duration_seconds, self.name)
        self._damaged: set[int] = set()
        self._resized: dict[int, tuple[int, int]] = {}
        self.rate = index.rate
        log.debug("Opened %r, %s frame rate", self, "constant" if index.is_constant else "variable")

    def _set_properties(self, frame: VideoFrame, stream: VideoStream) -> None:
        """Take the frame size, pixel aspect ratio and colors of all frames from the first frame."""
        if frame.colorspace in UNREADABLE_MATRICES:
            raise MediaError(
                f"{self.name} uses the color matrix {UNREADABLE_MATRICES[frame.colorspace]}, which cannot be converted "
                "to RGB. Export the video with BT.709 colors."
            )
        self._matrix = display_matrix(frame)
        self._stored_size = frame.width, frame.height
        self.width, self.height = self._stored_size
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self._has_odd_aspect = not MIN_ASPECT <= self.pixel_aspect <= 1 / MIN_ASPECT
        if self._has_odd_aspect:
            self.pixel_aspect = Fraction(1)
        if swaps_axes(self._matrix):
            self.width, self.height, self.pixel_aspect = self.height, self.width, 1 / self.pixel_aspect
        self._is_deep = is_high_bit_depth(frame)
        self.has_alpha = has_alpha(frame)
        is_yuv = len(frame.format.components) >= 3 and not frame.format.is_rgb
        is_hd = self._stored_size[0] >= HD_SIZE[0] or self._stored_size[1] >= HD_SIZE[1]
        self._is_untagged_hd = is_yuv and is_hd and frame.colorspace == UNSPECIFIED
        context = stream.codec_context  # frames have primaries and transfer only in PyAV 17 and newer
        self.color = ColorSpace.from_stream(context.color_primaries, context.color_trc, frame.colorspace)
        self._is_interlaced = frame.interlaced_frame

    @property
    def start_seconds(self) -> Fraction:
        """The time at which the first frame of the part appears, in seconds after the first frame of the file."""
        return self._index.seconds_between(0, self._part.start)

    @property
    def identity(self) -> Hashable:
        return self.content, self._part

    @property
    def frame_count(self) -> int:
        return len(self._part)

    @property
    def duration_seconds(self) -> Fraction:
        if self._index.is_constant:
            return self.frame_count / self.rate
        return self._index.seconds_between(self._part.start, self._part.stop)

    def index_at(self, seconds: Fraction) -> int:
        i = self._index.index_at(self._part.start, seconds) - self._part.start
        return min(max(i, 0), self.frame_count - 1)

    def time_of(self, index: int) -> Fraction:
        if self._index.is_constant:
            return index / self.rate
        return self._index.seconds_between(self._part.start, self._part.start + index)

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames as RGB (height, width, 3) in the order of `indices`. The function takes one index at a time.

        The dtype is uint8, or uint16 if the file has more than 8 bits. Increasing indices need a single decoding pass.
        A decreasing index decodes from the previous keyframe, and caches up to 256 MB of decoded frames for the next
        decreasing indices. The last good frame replaces a damaged frame, see `warnings`.

        Raises:
            UsageError: an index is out of range.
            MediaError: the file is damaged, or no longer exists.
        """
        return self._read(indices, "rgb48le" if self._is_deep else "rgb24")

    def read_alpha(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The alpha of frames: float32 (height, width) in 0..1. Requires `has_alpha`. Raises the errors of `read`."""
        for frame in self._read(indices, "rgba64le" if self._is_deep else "rgba"):
            yield to_float32(frame[..., 3])

    def _read(self, indices: Iterable[int], pix_fmt: str) -> Iterator[np.ndarray]:
        options = {"out_range": "full", **({"in_color_matrix": "bt709"} if self._is_untagged_hd else {})}
        convert = PixelConverter(pix_fmt, options, self._stored_size)
        with media_errors(self.name, MediaError, "a video"), open_container(self.content) as container:
            stream = _video_stream(container, self.name)
            reader = FrameReader(container, stream, self._index, self.name, self._damaged)
            for i, repeats in groupby(indices):
                frame = reader.frame(self._part[check_index(i, self)])
                if (frame.width, frame.height) != self._stored_size:
                    self._resized[i] = frame.width, frame.height
                pixels = to_rgb(frame, convert, self._matrix)
                for _ in repeats:
                    yield pixels

    def warnings(self) -> Iterator[str]:
        """Sentences for the user about the file. Reading finds the damage, so call this after the last read."""
        damaged = [i - self._part.start for i in sorted(self._damaged) if i in self._part]
        if damaged:
            yield (
                f"{self.name} has {len(damaged)} damaged frames out of {self.frame_count}. The first is frame "
                f"{damaged[0]}. The last good frame replaces each frame that cannot be decoded."
            )
        if self._resized:
            first = min(self._resized)
            (width, height), (other_width, other_height) = self._stored_size, self._resized[first]
            yield (
                f"The frame size of {self.name} changes from {width} x {height} to {other_width} x {other_height} at "
                f"frame {first}. LatentSync scales {len(self._resized)} of {self.frame_count} frames to {width} x "
                f"{height}."
            )
        if self._is_untagged_hd:
            yield (
                f"{self.name} has no tag for its color matrix. LatentSync reads the video as BT.709, as players do "
                "for HD videos. If the colors look wrong, export the video with color tags."
            )
        if self._has_odd_aspect:
            yield f"{self.name} has an invalid pixel aspect ratio. LatentSync treats the pixels as square."
        if self._is_interlaced:
            yield f"{self.name} is interlaced. For sharper lips, deinterlace the video first."

    def __repr__(self) -> str:
        return f"VideoFile({self.name}, {describe(self)})"


def _trim_range(index: FrameIndex, start: Fraction, duration: Fraction | None, name: str) -> range:
    """Frames that appear in [start, start + duration), with a tolerance for rounded timestamps."""
    if start < 0 or (duration is not None and duration <= 0):
        length = "" if duration is None else f" and a length of {float(duration):g} s"
        raise UsageError(
            f"{name} cannot be trimmed to a start of {float(start):g} s{length}. "
            "Use a start of at least 0 s and a length above 0 s."
        )
    stop = len(index.pts) if duration is None else index.first_from(start + duration)
    part = range(index.first_from(start), stop)
    if not part:
        seconds = float(index.seconds_between(0, len(index.pts)))
        raise UsageError(
            f"{name} has no frame in the part that starts at {float(start):g} s. "
            f"Choose a start before the end of the video at {seconds:g} s."
        )
    return part


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    """The video stream that players choose. Cover pictures do not count."""
    streams = picture_streams(container)
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "other data"
        raise MediaError(f"{name} has no video, only {kinds}. Choose a video file.")
    stream = preferred_stream(streams)
    if stream is None:
        raise MediaError(
            f"{name} has a video stream that cannot be decoded. The file is incomplete, or FFmpeg does not support its "
            "codec. Export the video as H.264."
        )
    return stream


def _animated_webp(name: str) -> MediaError:
    """The error for an animated WebP.

    FFmpeg before version 9 cannot decode animated WebP. Later versions cannot seek in animated WebP.
    """
    return MediaError(f"{name} is an animated WebP, which LatentSync cannot read. Convert the file to MP4 or GIF.")


def _undecodable(container: InputContainer, name: str, frames: int) -> MediaError:
    if container.format.name.startswith("webp"):
        return _animated_webp(name)
    return MediaError(f"{name} has {frames} frames, but none of them can be decoded. Export the video again.")
