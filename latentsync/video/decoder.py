"""Pictures of an open video by their position in its index, and how a decoded picture becomes RGB.

What is damaged does not end a read: a frame that cannot be decoded shows the last good picture before it, however it
is reached, and is counted.
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


BT709 = 1  # ITU-T H.273: the matrix of HD video


LIMITED_RANGE = 1  # FFmpeg's AVCOL_RANGE_MPEG


CACHE_BYTES = 256 * 2**20  # decoded pictures that one backward read may hold


LATEST_START_SECONDS = 4  # before the first picture, beyond which asking for earlier ones is of no use


class FrameReader:
    """Reads in any order: rising positions are one pass, falling ones decode a group of pictures at a time.

    damaged: positions met so far that could not be decoded whole; shared with whoever reports them.
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
        self._held: OrderedDict[int, VideoFrame] = OrderedDict()
        self._pictures = decode_packets(container, stream)
        self._last: VideoFrame | None = None
        self._next = 0

    def picture(self, i: int) -> VideoFrame:
        """The picture at position `i` of the index, or the last good one before it.

        Raises:
            MediaError: no picture of the stream can be decoded.
        """
        at = i
        found = self._find(at)
        while found is None and (key := self._index.key_before(at)) > 0:
            at = key - 1
            found = self._find(at)
        return found or self._first()

    def _find(self, i: int) -> VideoFrame | None:
        """The picture at `i`, or the last good one since its keyframe or since where this reader stood."""
        if i in self._held:
            return self._held[i]
        falling = i < self._next
        self._held.clear()
        if falling or self._index.key_before(i) > self._next:
            self._seek(self._index.key_before(i))
        return self._decode_to(i, keep_all=falling)

    def _first(self) -> VideoFrame:
        """The first good picture of all, where the very beginning is damaged."""
        self._seek(0)
        for frame in self._pictures:
            if self._position(frame) is not None:
                self._pictures = chain([frame], self._pictures)
                return frame
        raise MediaError(f"{self._name}: none of its frames can be decoded; export the video again")

    def _decode_to(self, i: int, *, keep_all: bool) -> VideoFrame | None:
        for frame in self._pictures:
            at = self._position(frame)
            if at is None or at < self._next:
                continue
            self._pass_over(at)
            if frame.is_corrupt:
                self._damaged.add(at)
            if keep_all or at >= i:
                self._hold(at, frame)
            self._last, self._next = frame, at + 1
            if at >= i:
                return self._held.get(i)
        self._pass_over(len(self._index.pts))
        return self._held.get(i)

    def _pass_over(self, stop: int) -> None:
        """The positions before `stop` that did not come: the last good picture stands in for them."""
        for missing in range(self._next, stop):
            self._damaged.add(missing)
            if self._last is not None:
                self._held[missing] = self._last
        self._next = stop

    def _hold(self, at: int, frame: VideoFrame) -> None:
        room = max(CACHE_BYTES // max(sum(plane.buffer_size for plane in frame.planes), 1), 1)
        while len(set(map(id, self._held.values()))) >= room:
            self._held.popitem(last=False)
        self._held[at] = frame

    def _seek(self, key: int) -> None:
        """Stand before `key`.

        Some containers land later than asked (MPEG-TS on any packet, by decoding time): ask for ever earlier times.
        """
        wanted, first_key = self._index.pts[key], self._index.pts[self._index.keys[0]]
        earlier = 0
        while True:
            self._container.seek(wanted - earlier, stream=self._stream, backward=True)
            pictures = decode_packets(self._container, self._stream)
            first = next(pictures, None)
            if self._landed(first) <= key or wanted - earlier < first_key - ceil(
                LATEST_START_SECONDS / self._index.tick
            ):
                break
            earlier = max(2 * earlier, ceil(1 / self._index.tick))
        self._pictures = chain([] if first is None else [first], pictures)
        self._last, self._next = None, key

    def _landed(self, frame: VideoFrame | None) -> int:
        if frame is None or frame.pts is None:
            return len(self._index.pts)
        return bisect_left(self._index.pts, frame.pts)

    def _position(self, frame: VideoFrame) -> int | None:
        if frame.pts is None:
            return None
        at = bisect_left(self._index.pts, frame.pts)
        return at if self._index.pts[at : at + 1] == [frame.pts] else None


def to_rgb(stored: VideoFrame, matrix: np.ndarray) -> np.ndarray:
    """A decoded picture as it is shown: RGB (height, width, 3), uint8, or uint16 where it has more than 8 bits.

    Args:
        matrix: the stream's, see `display_matrix`.

    As PyAV 18 converts by itself; before it, PyAV took BT.709 for BT.601 unless every part was spelt out.
    """
    layout = "rgb48le" if is_high_bit_depth(stored) else "rgb24"
    frame = stored
    if (stored.colorspace, stored.color_range) == (BT709, LIMITED_RANGE):
        frame = reformat(
            stored,
            format=layout,
            src_colorspace="ITU709",
            dst_colorspace="ITU601",
            src_color_range="MPEG",
            dst_color_range="JPEG",
        )
    return np.ascontiguousarray(_apply_display_matrix(reformat(frame, format=layout).to_ndarray(), matrix))


def display_size(frame: VideoFrame, matrix: np.ndarray) -> tuple[int, int]:
    """Height and width in pixels, as it is shown."""
    return (frame.width, frame.height) if _swaps_axes(matrix) else (frame.height, frame.width)


def is_high_bit_depth(frame: VideoFrame) -> bool:
    """Whether a component has more than 8 bits."""
    return any(component.bits > 8 for component in frame.format.components)


def display_matrix(frame: VideoFrame) -> np.ndarray:
    """What takes a stored pixel to where it is shown, (x, y) @ matrix: (2, 2); the identity where nothing is said.

    To be asked of one frame of a stream: PyAV's frames keep themselves alive once their side data is looked at.
    """
    from av.sidedata.sidedata import Type

    said = cast("Any", frame.side_data).get(Type.DISPLAYMATRIX)  # PyAV's stubs know other keys than PyAV
    if said is None:
        return np.eye(2)
    return np.frombuffer(bytes(said), np.int32).reshape(3, 3)[:2, :2] / 65536


def _swaps_axes(matrix: np.ndarray) -> bool:
    """Whether it exchanges height and width; anything between right angles goes to the nearer."""
    return abs(matrix[0, 1]) + abs(matrix[1, 0]) > abs(matrix[0, 0]) + abs(matrix[1, 1])


def _apply_display_matrix(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The picture turned and mirrored by a display matrix."""
    if _swaps_axes(matrix):
        picture, matrix = picture.swapaxes(0, 1), matrix[::-1]
    x_grows, y_grows = matrix[0, 0] >= 0, matrix[1, 1] >= 0
    return picture[:: 1 if y_grows else -1, :: 1 if x_grows else -1]
