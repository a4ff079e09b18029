"""Convert frames between pixel formats, color matrices and sizes with FFmpeg's scale filter.

The module does not use `VideoFrame.reformat`. Before PyAV 17, `reformat` uses wrong matrices and ranges. Before PyAV
18, `reformat` does not support BT.2020. From PyAV 17 on, `reformat` converts in several threads, which overwrite each
other's first pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from av.filter import Graph
    from av.filter.context import FilterContext
    from av.video.frame import VideoFrame


class PixelConverter:
    """Converts frames of any pixel format and size. Each new format or size needs a new filter graph.

    Args:
        pix_fmt: FFmpeg's name of the result's pixel format.
        options: options of FFmpeg's scale filter.
        size: width and height of the result in pixels. None keeps the size of each frame.
    """

    def __init__(self, pix_fmt: str, options: Mapping[str, str], size: tuple[int, int] | None = None) -> None:
        # bicubic is FFmpeg's default. Besides, FFmpeg 8.0 gives wrong colors for bilinear 4:2:0 with more than 8 bits.
        self._scale = {"flags": "bicubic", "threads": "1", **options}
        if size is not None:
            self._scale |= {"w": str(size[0]), "h": str(size[1])}
        self.pix_fmt = pix_fmt
        self._input: tuple[object, ...] | None = None
        self._graph: tuple[Graph, FilterContext, FilterContext] | None = None

    def __call__(self, frame: VideoFrame) -> VideoFrame:
        """Convert one frame. The result has no timestamp."""
        properties = frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
        if self._graph is None or properties != self._input:
            self._graph, self._input = self._build(*properties), properties
        _, start, end = self._graph
        timestamp, time_base = frame.pts, frame.time_base
        frame.pts, frame.time_base = 0, Fraction(1, 25)  # the filters check them, but the values do not matter
        start.push(frame)
        frame.pts = timestamp
        if time_base is not None:
            frame.time_base = time_base
        return cast("VideoFrame", end.pull())

    def _build(
        self, width: int, height: int, pix_fmt: str, matrix: int, color_range: int
    ) -> tuple[Graph, FilterContext, FilterContext]:
        from av.filter import Graph

        graph = Graph()
        source = {
            "video_size": f"{width}x{height}",
            "pix_fmt": pix_fmt,
            "time_base": "1/25",
            "colorspace": str(matrix),
            "range": str(color_range),
        }
        filters = [
            graph.add("buffer", _arguments(source)),
            graph.add("scale", _arguments(self._scale)),
            graph.add("format", self.pix_fmt),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*filters)
        graph.configure()
        return graph, filters[0], filters[-1]


def _arguments(options: dict[str, str]) -> str:
    return ":".join(f"{name}={value}" for name, value in options.items())
