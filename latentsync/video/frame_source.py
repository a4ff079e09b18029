"""Frame sources: anything that gives RGB frames by index, at an exact rate."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from ..errors import MediaError, UsageError
from .color import BT709, ColorSpace

if TYPE_CHECKING:
    pass


class FrameSource(Protocol):
    """Pictures in order of time, read again whenever they are needed.

    name: what errors call it.
    rate: frames per second; the mean where the clock varies.
    height, width: displayed size in pixels.
    color: what the numbers of its pixels mean.
    identity: equal for two sources of the same pixels, as far as that is known without looking at them.
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
    def color(self) -> ColorSpace: ...
    @property
    def identity(self) -> Hashable: ...
    @property
    def duration_seconds(self) -> Fraction: ...

    def index_at(self, seconds: Fraction) -> int:
        """The frame on display `seconds` after the first one appeared; the first or last beyond the ends."""
        ...

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """(height, width, 3) RGB, C-contiguous, one per index: uint8 of a video, uint16 of one with more than 8 bits,
        float32 in 0..1 of a batch."""
        ...

    def warnings(self) -> Iterator[str]:
        """What its user should know of it, one sentence each; damage is met while reading."""
        ...


class ImageBatch:
    """The pictures of an IMAGE batch at a rate.

    Args:
        images: (frames, height, width, 3 or 4), floating point in 0..1, on any device; converted a frame at a time.
        rate: frames per second.

    Raises:
        MediaError: the tensor is no such batch.
    """

    name = "the image batch"
    color = BT709

    def __init__(self, images: torch.Tensor, rate: Fraction) -> None:
        if images.ndim != 4 or images.shape[3] not in (3, 4) or 0 in images.shape or not images.is_floating_point():
            raise MediaError(
                f"{self.name}: images must be floating point (frames, height, width, 3 or 4) with none of them 0, "
                f"not {images.dtype} {tuple(images.shape)}"
            )
        if rate <= 0:
            raise UsageError(f"a frame rate must be positive, not {rate}")
        self.images = images
        self.rate = rate
        self.frame_count, self.height, self.width = images.shape[:3]

    @property
    def identity(self) -> Hashable:
        return self.images.data_ptr(), self.images.shape, self.images.stride(), self.rate

    @property
    def alpha(self) -> torch.Tensor | None:
        """(frames, height, width) in 0..1, where the batch has it."""
        return self.images[..., 3] if self.images.shape[3] == 4 else None

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def index_at(self, seconds: Fraction) -> int:
        return min(max(int(seconds * self.rate // 1), 0), self.frame_count - 1)

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames as float32 (height, width, 3) RGB, in the order of `indices`.

        Raises:
            UsageError: an index out of range.
            MediaError: a frame holds NaN or infinity.
        """
        for i in indices:
            picture = self.images[checked_index(i, self), ..., :3].to("cpu", torch.float32).contiguous()
            if not bool(picture.isfinite().all()):
                raise MediaError(f"{self.name}: frame {i} has values that are not numbers; look at the node it is from")
            yield picture.numpy()

    def warnings(self) -> Iterator[str]:
        """None."""
        return iter(())

    def __repr__(self) -> str:
        return f"ImageBatch({describe(self)})"


def checked_index(i: int, source: FrameSource) -> int:
    if not 0 <= i < source.frame_count:
        raise UsageError(f"{source.name}: there is no frame {i}; it has {source.frame_count}")
    return i


def describe(source: FrameSource) -> str:
    return f"{source.frame_count} frames of {source.width} x {source.height} at {float(source.rate):g} fps"
