"""Frames of a video file with exact random access by frame index."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MediaError, UsageError
from .color import ColorSpace
from .container import decode_packets, first_decodable, media_errors, open_container
from .decoder import FrameReader, display_matrix, display_size, to_rgb
from .frame_index import FrameIndex, index_frames
from .frame_source import checked_index, describe

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


class VideoFile:
    """The frames of a video file, or of a part of it.

    Opening reads every packet but decodes one picture only. Any number of reads may run at once.

    Args:
        source: path, or the file's bytes (its position is neither used nor moved).
        start_seconds: frames before it are left out, counted from the first frame shown.
        duration_seconds: frames that begin later than this after `start_seconds` are left out; None keeps the rest.

    Raises:
        MediaError: no file, no video, or a damaged one.
        UsageError: the part asked for holds no frame.
    """

    def __init__(
        self,
        source: str | Path | BytesIO,
        *,
        start_seconds: Fraction = Fraction(0),
        duration_seconds: Fraction | None = None,
    ) -> None:
        self.name = source_name(source)
        self._source = source.getvalue() if isinstance(source, BytesIO) else Path(source)
        with media_errors(self.name, MediaError, "video"), open_container(self._source) as container:
            index = index_frames(container, _video_stream(container, self.name), self.name)
        with media_errors(self.name, MediaError, "video"), open_container(self._source) as container:
            picture = next(decode_packets(container, _video_stream(container, self.name)), None)
            if picture is None:
                raise MediaError(f"{self.name}: not one of its {len(index.pts)} frames can be decoded; export it again")
            self._matrix = display_matrix(picture)
            self.height, self.width = display_size(picture, self._matrix)
            self.color = ColorSpace.said(picture.color_primaries, picture.color_trc, picture.colorspace)
            self._is_interlaced = picture.interlaced_frame
        self._index = index
        self._shown = _trim_range(index, start_seconds, duration_seconds, self.name)
        self._damaged: set[int] = set()
        self.rate = index.rate

    @property
    def content(self) -> Path | bytes:
        """The file, or its bytes where it is held in memory."""
        return self._source

    @property
    def identity(self) -> Hashable:
        return self._source, self._shown

    @property
    def frame_count(self) -> int:
        return len(self._shown)

    @property
    def duration_seconds(self) -> Fraction:
        if self._index.is_constant:
            return self.frame_count / self.rate
        return self._index.seconds_between(self._shown.start, self._shown.stop)

    def index_at(self, seconds: Fraction) -> int:
        return min(max(self._index.at(self._shown.start, seconds) - self._shown.start, 0), self.frame_count - 1)

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames as RGB (height, width, 3) in the order of `indices`, which is consumed one at a time.

        They are uint8, or uint16 where the file has more than 8 bits. Rising indices are one decoding pass. A falling
        one decodes from the keyframe before it and holds up to 256 MB of the pictures on the way, so that those after
        it come from there. A damaged frame shows the last good one before it; see `warnings`.

        Raises:
            UsageError: an index out of range.
            MediaError: the file is damaged or gone.
        """
        last: tuple[int, np.ndarray] | None = None
        with media_errors(self.name, MediaError, "video"), open_container(self._source) as container:
            stream = _video_stream(container, self.name)
            reader = FrameReader(container, stream, self._index, self.name, self._damaged)
            for i in indices:
                if last is None or last[0] != i:
                    last = (i, to_rgb(reader.picture(self._shown[checked_index(i, self)]), self._matrix))
                yield last[1]

    def warnings(self) -> Iterator[str]:
        """What its user should know of it, one sentence each.

        Damage is met while reading: ask after a read of the whole.
        """
        damaged = [i - self._shown.start for i in sorted(self._damaged) if i in self._shown]
        if damaged:
            yield (
                f"{self.name}: {len(damaged)} of {self.frame_count} frames are damaged (the first is {damaged[0]}); "
                "the picture before stands in for those that cannot be decoded"
            )
        if self._is_interlaced:
            yield f"{self.name}: is interlaced, and kept as it is; deinterlaced first, its lips would be finer"

    def __repr__(self) -> str:
        return f"VideoFile({self.name}, {describe(self)})"


def source_name(source: str | Path | BytesIO) -> str:
    """What errors call it: the file's name, without its folder."""
    return "the media in memory" if isinstance(source, BytesIO) else Path(source).name or str(source)


def _trim_range(index: FrameIndex, start: Fraction, duration: Fraction | None, name: str) -> range:
    """Frames that appear in [start, start + duration), give or take a rounded timestamp."""
    if start < 0 or (duration is not None and duration <= 0):
        raise UsageError(
            f"{name}: a part needs a start of at least 0 and a positive length, not {start} and {duration}"
        )
    stop = len(index.pts) if duration is None else index.beginning(start + duration)
    shown = range(index.beginning(start), stop)
    if not shown:
        lasts = float(index.seconds_between(0, len(index.pts)))
        raise UsageError(
            f"{name}: no frame begins in the part asked for (from {float(start):g} s); it lasts {lasts:g} s"
        )
    return shown


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    from av.stream import Disposition

    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError(f"{name}: has no video, only {_kinds(container)}; give a video file")
    stream = first_decodable(streams)
    if stream is None:
        raise MediaError(f"{name}: its video is cut short, or in a format that FFmpeg lacks; export it as H.264")
    return stream


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing that can be played"
