"""Frame sources: RGB frames by index, at an exact frame rate."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch

from ..errors import MediaError, UsageError
from .color import BT709, ColorSpace


class FrameSource(Protocol):
    """Frames in display order. You can read the frames any number of times.

    name: name of the source in messages.
    rate: frames per second. For a variable frame rate, the value is the mean.
    height, width: display size in pixels.
    pixel_aspect: width / height of a pixel as displayed. 1: pixels are square.
    has_alpha: whether the frames have alpha, see `read_alpha`.
    color: color space of the frames.
    identity: equal only for sources with the same pixels. The comparison reads no pixels.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame_count(self) -> int: ...
    @property
    def rate(self) -> Fraction: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def pixel_aspect(self) -> Fraction: ...
    @property
    def has_alpha(self) -> bool: ...
    @property
    def color(self) -> ColorSpace: ...
    @property
    def identity(self) -> Hashable: ...
    @property
    def duration_seconds(self) -> Fraction: ...

    def index_at(self, seconds: Fraction) -> int:
        """Index of the frame that a player shows `seconds` after the first frame, or else the nearest frame."""
        ...

    def time_of(self, index: int) -> Fraction:
        """The time at which a frame appears, in seconds after the first frame."""
        ...

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """One frame per index: (height, width, 3) RGB, C-contiguous. Do not change the arrays.

        The dtype is uint8 for a video, uint16 for a video with more than 8 bits, float32 in 0..1 for an image batch.
        """
        ...

    def read_alpha(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The alpha of one frame per index: float32 (height, width) in 0..1."""
        ...

    def warnings(self) -> Iterator[str]:
        """Messages for the user about the original video. Only reading the video finds damage."""
        ...


class ImageBatch:
    """The frames of an IMAGE batch.

    Args:
        images: (frames, height, width, 3 or 4), floating point in 0..1, on any device. `read` converts one frame at a
            time.
        rate: frames per second.

    Raises:
        MediaError: the tensor has another shape or dtype.
        UsageError: the frame rate is not positive.
    """

    name = "the image batch"
    color = BT709
    pixel_aspect = Fraction(1)

    def __init__(self, images: torch.Tensor, rate: Fraction) -> None:
        if images.ndim != 4 or images.shape[3] not in (3, 4) or 0 in images.shape or not images.is_floating_point():
            raise MediaError(
                '"source" is not a batch of RGB or RGBA images with float values. '
                "Provide at least one frame with 3 or 4 channels."
            )
        if rate <= 0:
            raise UsageError(f'"image_fps" cannot be {rate}. Choose a number above 0.')
        self.images = images
        self.rate = rate
        self.frame_count, self.height, self.width = images.shape[:3]

    @property
    def identity(self) -> Hashable:
        return self.images.data_ptr(), self.images.shape, self.images.stride(), self.rate

    @property
    def has_alpha(self) -> bool:
        return self.images.shape[3] == 4

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def index_at(self, seconds: Fraction) -> int:
        return min(max(int(seconds * self.rate // 1), 0), self.frame_count - 1)

    def time_of(self, index: int) -> Fraction:
        return index / self.rate

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames as float32 (height, width, 3) RGB, in the order of `indices`. They are read-only.

        Raises:
            UsageError: an index is out of range.
            MediaError: a frame contains NaN or infinite values.
        """
        for i in indices:
            image = self.images[check_index(i, self), ..., :3].to("cpu", torch.float32).contiguous()
            if not bool(image.isfinite().all()):
                raise MediaError(
                    f'Frame {i} of "source" contains NaN or infinite values. Check the node that made the images.'
                )
            frame = image.numpy()
            frame.flags.writeable = False  # it may share memory with the user's tensor
            yield frame

    def read_alpha(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The fourth channel of images."""
        for i in indices:
            yield self.images[check_index(i, self), ..., 3].to("cpu", torch.float32).numpy()

    def warnings(self) -> Iterator[str]:
        """An image batch has no warnings."""
        return iter(())

    def __repr__(self) -> str:
        return f"ImageBatch({describe(self)})"


def check_index(i: int, source: FrameSource) -> int:
    """Return the index, or raise UsageError if the source has no such frame."""
    if not 0 <= i < source.frame_count:
        raise UsageError(f"{source.name} has no frame {i}. Use a frame from 0 to {source.frame_count - 1}.")
    return i


def describe(source: FrameSource) -> str:
    """Number, size and rate of the frames, for `__repr__`."""
    return f"{source.frame_count} frames of {source.width} x {source.height} at {float(source.rate):g} fps"
