"""Decode the frames of an open video by their position in its index, and convert them to RGB.

Damage does not stop the reading. The last good frame replaces each frame that cannot be decoded, in every order of
reading.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import MediaError
from .container import decode_packets
from .frame_index import FrameIndex
from .pixel_converter import PixelConverter

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CACHE_BYTES = 256 * 2**20  # decoded frames that one backward read may hold
MAX_SIDE_DATA_TYPE = 64  # FFmpeg 8 has 32
MAX_SEEK_SECONDS = 4  # before the first frame. No container seeks further back


class FrameReader:
    """Reads frames in any order. Increasing positions need one decoding pass. For other positions, the reader decodes
    one group of pictures at a time.

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
        self._decoder = alpha_decoder(stream)
        self._decoded = self._decode()
        self._last_good: VideoFrame | None = None
        self._next = 0

    def frame(self, i: int) -> VideoFrame:
        """The frame at position `i` of the index, or the last good frame before it.

        Raises:
            MediaError: no frame of the stream can be decoded.
        """
        position = i
        frame = self._find(position)
        while frame is None and (keyframe := self._index.keyframe_before(position)) > 0:
            position = keyframe - 1
            frame = self._find(position)
        return frame or self._first_good()

    def _decode(self) -> Iterator[VideoFrame]:
        return decode_packets(self._container.demux(self._stream), self._decoder, by_dts=self._index.by_dts)

    def _find(self, i: int) -> VideoFrame | None:
        """Decode frame `i`. For a damaged frame, return the last good frame since the last seek, or None."""
        if i in self._cache:
            return self._cache[i]
        is_backward = i < self._next
        self._cache.clear()
        if is_backward or self._index.keyframe_before(i) > self._next:
            self._seek(self._index.keyframe_before(i))
        return self._decode_to(i, keep_all=is_backward)

    def _first_good(self) -> VideoFrame:
        """The first good frame of the stream, which replaces the frames of a damaged start."""
        self._seek(0)
        for frame in self._decoded:
            if self._index.position_of(frame.pts) is not None:
                self._decoded = chain([frame], self._decoded)
                return frame
        raise MediaError(f"{self._name} has no frame that can be decoded. Export the video again.")

    def _decode_to(self, i: int, *, keep_all: bool) -> VideoFrame | None:
        for frame in self._decoded:
            position = self._index.position_of(frame.pts)
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
        """Replace the missing frames before `stop` with the last good frame."""
        for missing in range(self._next, stop):
            self._damaged.add(missing)
            if self._last_good is not None:
                self._cache[missing] = self._last_good
        self._next = stop

    def _keep(self, position: int, frame: VideoFrame) -> None:
        """Add a frame to the cache, and drop the oldest frames to stay within CACHE_BYTES."""
        max_frames = max(CACHE_BYTES // max(sum(plane.buffer_size for plane in frame.planes), 1), 1)
        while len(set(map(id, self._cache.values()))) >= max_frames:
            self._cache.popitem(last=False)
        self._cache[position] = frame

    def _seek(self, keyframe: int) -> None:
        """Continue decoding at `keyframe`.

        Some containers seek to a later time than requested (MPEG-TS to any packet, by decoding time). Therefore each
        attempt requests an earlier time.
        """
        times = self._index.decoder_pts
        wanted, first_keyframe = times[keyframe], times[self._index.keyframes[0]]
        # AVI refuses to seek before the first frame
        margin = 0 if self._index.by_dts else ceil(MAX_SEEK_SECONDS / self._index.time_base)
        earliest = first_keyframe - margin
        earlier = 0
        while True:
            target = max(wanted - earlier, earliest)
            self._container.seek(target, stream=self._stream, backward=True)
            if self._decoder is not None:
                self._decoder.flush_buffers()
            decoded = self._decode()
            first = next(decoded, None)
            position = None if first is None else self._index.position_of(first.pts)
            if (position is not None and position <= keyframe) or target == earliest:
                break
            earlier = max(2 * earlier, ceil(1 / self._index.time_base))
        self._decoded = chain([] if first is None else [first], decoded)
        self._last_good, self._next = None, keyframe


def alpha_decoder(stream: VideoStream) -> VideoCodecContext | None:
    """libvpx's decoder for VP8 and VP9 with alpha. FFmpeg's own decoders ignore alpha. None for other streams."""
    from av.codec import CodecContext

    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) != "1":
        return None
    return cast("VideoCodecContext", CodecContext.create(name, "r"))


def to_rgb(frame: VideoFrame, convert: PixelConverter, matrix: np.ndarray) -> np.ndarray:
    """Convert a decoded frame for display: C-contiguous (height, width, components), uint8 or uint16.

    Args:
        convert: converter to the pixel format and the size of the result.
        matrix: `display_matrix` of the stream.
    """
    return np.ascontiguousarray(_apply_display_matrix(convert(frame).to_ndarray(), matrix))


def has_alpha(frame: VideoFrame) -> bool:
    """Whether the pixel format of a frame has alpha."""
    return any(component.is_alpha for component in frame.format.components)


def is_high_bit_depth(frame: VideoFrame) -> bool:
    """Whether a component has more than 8 bits."""
    return any(component.bits > 8 for component in frame.format.components)


def display_matrix(frame: VideoFrame) -> np.ndarray:
    """Rotation and mirroring of a stream, (2, 2): displayed pixel = stored pixel (x, y) @ matrix.

    Call this for only one frame of a stream, because PyAV never frees a frame after its side data was read.
    """
    from av.sidedata.sidedata import Type

    try:
        side_data = frame.side_data
    except ValueError:  # PyAV cannot list side data of a type that it does not know, such as EXIF
        side_data = _drop_unknown_side_data(frame).side_data
    data = cast("Any", side_data).get(Type.DISPLAYMATRIX)  # PyAV's stubs know other keys than PyAV
    if data is None:
        return np.eye(2)
    return np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2] / 65536


def _drop_unknown_side_data(frame: VideoFrame) -> VideoFrame:
    from av.filter import Graph
    from av.sidedata.sidedata import Type

    graph = Graph()
    size = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
    unknown = range(max(kind.value for kind in Type) + 1, MAX_SIDE_DATA_TYPE)
    filters = [
        graph.add("buffer", f"{size}:time_base=1/25"),
        *(graph.add("sidedata", f"mode=delete:type={number}") for number in unknown),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*filters)
    graph.configure()
    filters[0].push(frame)
    return cast("VideoFrame", filters[-1].pull())


def swaps_axes(matrix: np.ndarray) -> bool:
    """Whether a display matrix exchanges height and width. An angle counts as the nearest multiple of 90 degrees."""
    return abs(matrix[0, 1]) + abs(matrix[1, 0]) > abs(matrix[0, 0]) + abs(matrix[1, 1])


def _apply_display_matrix(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate and mirror an image by a display matrix."""
    if swaps_axes(matrix):
        image, matrix = image.swapaxes(0, 1), matrix[::-1]
    is_x_rising, is_y_rising = matrix[0, 0] >= 0, matrix[1, 1] >= 0
    return image[:: 1 if is_y_rising else -1, :: 1 if is_x_rising else -1]
