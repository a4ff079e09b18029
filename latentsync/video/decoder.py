"""Decode the frames of an open video by their position in its index, and convert them to RGB.

Damage does not end a read. The last good frame before a frame that cannot be decoded replaces it, in whatever order
the frames are read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import MediaError
from .container import decode_packets, reformat
from .frame_index import FrameIndex

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

BT709_MATRIX = 1  # ITU-T H.273
LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG of FFmpeg
CACHE_BYTES = 256 * 2**20  # decoded frames that one backward read may hold
MAX_SEEK_SECONDS = 4  # before the first frame; no container seeks further back


class FrameReader:
    """Reads frames in any order. Rising positions take one decoding pass, falling ones decode a GOP at a time.

    Args:
        damaged: collects the positions of frames that could not be decoded completely.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, index: FrameIndex, name: str, damaged: set[int]
    ) -> None:
        self._container = container
        self._stream = stream
        self._stream.thread_type = "AUTO"
        self._index = index
        self._name = name
        self._damaged = damaged
        self._cache: OrderedDict[int, VideoFrame] = OrderedDict()
        self._decoded = decode_packets(container, stream)
        self._last_good: VideoFrame | None = None
        self._next = 0

    def frame(self, i: int) -> VideoFrame:
        """The frame at position `i` of the index, or the last good one before it.

        Raises:
            MediaError: no frame of the stream can be decoded.
        """
        position = i
        frame = self._find(position)
        while frame is None and (keyframe := self._index.keyframe_before(position)) > 0:
            position = keyframe - 1
            frame = self._find(position)
        return frame or self._first_good()

    def _find(self, i: int) -> VideoFrame | None:
        """The frame at `i`, or the last good one after its keyframe or after the current position."""
        if i in self._cache:
            return self._cache[i]
        is_backward = i < self._next
        self._cache.clear()
        if is_backward or self._index.keyframe_before(i) > self._next:
            self._seek(self._index.keyframe_before(i))
        return self._decode_to(i, keep_all=is_backward)

    def _first_good(self) -> VideoFrame:
        """The first good frame of all, for frames of a damaged start."""
        self._seek(0)
        for frame in self._decoded:
            if self._position(frame) is not None:
                self._decoded = chain([frame], self._decoded)
                return frame
        raise MediaError(f"{self._name} has no frame that can be decoded. Export it again.")

    def _decode_to(self, i: int, *, keep_all: bool) -> VideoFrame | None:
        for frame in self._decoded:
            position = self._position(frame)
            if position is None or position < self._next:
                continue
            self._replace_missing(position)
            if frame.is_corrupt:
                self._damaged.add(position)
            if keep_all or position >= i:
                self._keep(position, frame)
            self._last_good, self._next = frame, position + 1
            if position >= i:
                return self._cache.get(i)
        self._replace_missing(len(self._index.pts))
        return self._cache.get(i)

    def _replace_missing(self, stop: int) -> None:
        """Let the last good frame replace the frames before `stop` that were not decoded."""
        for missing in range(self._next, stop):
            self._damaged.add(missing)
            if self._last_good is not None:
                self._cache[missing] = self._last_good
        self._next = stop

    def _keep(self, position: int, frame: VideoFrame) -> None:
        """Add a frame to the cache, which drops its oldest ones to stay within CACHE_BYTES."""
        max_frames = max(CACHE_BYTES // max(sum(plane.buffer_size for plane in frame.planes), 1), 1)
        while len(set(map(id, self._cache.values()))) >= max_frames:
            self._cache.popitem(last=False)
        self._cache[position] = frame

    def _seek(self, keyframe: int) -> None:
        """Continue decoding at `keyframe`.

        Some containers land later than asked (MPEG-TS on any packet, by decoding time), so ask for ever earlier times.
        """
        wanted, first_keyframe = self._index.pts[keyframe], self._index.pts[self._index.keyframes[0]]
        earliest = first_keyframe - ceil(MAX_SEEK_SECONDS / self._index.time_base)
        earlier = 0
        while True:
            self._container.seek(wanted - earlier, stream=self._stream, backward=True)
            decoded = decode_packets(self._container, self._stream)
            first = next(decoded, None)
            pts = None if first is None else first.pts
            has_landed = pts is not None and bisect_left(self._index.pts, pts) <= keyframe
            if has_landed or wanted - earlier < earliest:
                break
            earlier = max(2 * earlier, ceil(1 / self._index.time_base))
        self._decoded = chain([] if first is None else [first], decoded)
        self._last_good, self._next = None, keyframe

    def _position(self, frame: VideoFrame) -> int | None:
        """Position of a decoded frame in the index, or None if it is not in it."""
        if frame.pts is None:
            return None
        position = bisect_left(self._index.pts, frame.pts)
        return position if self._index.pts[position : position + 1] == [frame.pts] else None


def to_rgb(frame: VideoFrame, matrix: np.ndarray) -> np.ndarray:
    """Convert a decoded frame to RGB as it is displayed: (height, width, 3), uint8, or uint16 for more than 8 bits.

    The result is that of PyAV 18. Before it, PyAV took BT.709 for BT.601 unless every part was named.

    Args:
        matrix: `display_matrix` of the stream.
    """
    pix_fmt = "rgb48le" if is_high_bit_depth(frame) else "rgb24"
    if (frame.colorspace, frame.color_range) == (BT709_MATRIX, LIMITED_RANGE):
        frame = reformat(
            frame,
            format=pix_fmt,
            src_colorspace="ITU709",
            dst_colorspace="ITU601",
            src_color_range="MPEG",
            dst_color_range="JPEG",
        )
    return np.ascontiguousarray(_apply_display_matrix(reformat(frame, format=pix_fmt).to_ndarray(), matrix))


def is_high_bit_depth(frame: VideoFrame) -> bool:
    """Whether a component has more than 8 bits."""
    return any(component.bits > 8 for component in frame.format.components)


def display_matrix(frame: VideoFrame) -> np.ndarray:
    """Rotation and mirroring of a stream: (2, 2), maps stored to displayed pixels as (x, y) @ matrix.

    Ask one frame of a stream only: PyAV's frames keep themselves alive once their side data has been read.
    """
    from av.sidedata.sidedata import Type

    data = cast("Any", frame.side_data).get(Type.DISPLAYMATRIX)  # PyAV's stubs know other keys than PyAV
    if data is None:
        return np.eye(2)
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 65536


def display_size(frame: VideoFrame, matrix: np.ndarray) -> tuple[int, int]:
    """Height and width in pixels as displayed."""
    return (frame.width, frame.height) if _swaps_axes(matrix) else (frame.height, frame.width)


def _swaps_axes(matrix: np.ndarray) -> bool:
    """Whether a display matrix exchanges height and width. Other angles count as the nearest right angle."""
    return abs(matrix[0, 1]) + abs(matrix[1, 0]) > abs(matrix[0, 0]) + abs(matrix[1, 1])


def _apply_display_matrix(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate and mirror an image by a display matrix."""
    if _swaps_axes(matrix):
        image, matrix = image.swapaxes(0, 1), matrix[::-1]
    is_x_rising, is_y_rising = matrix[0, 0] >= 0, matrix[1, 1] >= 0
    return image[:: 1 if is_y_rising else -1, :: 1 if is_x_rising else -1]
