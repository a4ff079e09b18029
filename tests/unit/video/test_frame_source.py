"""ImageBatch: frames from a tensor."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.errors import MediaError, UsageError
from latentsync.video.frame_source import ImageBatch


def test_image_batch_reads_frames() -> None:
    images = torch.rand(5, 6, 7, 3)
    batch = ImageBatch(images, Fraction(24))
    assert (batch.frame_count, batch.height, batch.width, batch.rate) == (5, 6, 7, 24)
    assert batch.duration_seconds == Fraction(5, 24)
    assert [batch.index_at(Fraction(i, 24)) for i in range(-1, 7)] == [0, 0, 1, 2, 3, 4, 4, 4]
    for i, picture in zip([4, 0, 0], batch.read(iter([4, 0, 0])), strict=True):
        assert picture.dtype == np.float32
        assert picture.flags.c_contiguous
        np.testing.assert_array_equal(picture, images[i].numpy())
    with pytest.raises(UsageError, match="has no frame 5"):
        list(batch.read([5]))


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 4, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_image_batch_frames_are_read_only(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.rand(shape).to(dtype)
    before = images.clone()
    (frame,) = ImageBatch(images, Fraction(25)).read([1])
    with pytest.raises(ValueError, match="read-only"):
        frame[0, 0] = 0
    assert torch.equal(images, before)


def test_image_batch_keeps_alpha_and_takes_fp16() -> None:
    images = torch.rand(2, 4, 4, 4).half()
    batch = ImageBatch(images, Fraction(25))
    assert batch.has_alpha
    np.testing.assert_array_equal(next(batch.read_alpha([1])), images[1, ..., 3].float().numpy())
    np.testing.assert_array_equal(next(batch.read([1])), images[1, ..., :3].float().numpy())
    assert not ImageBatch(images[..., :3], Fraction(25)).has_alpha


@pytest.mark.parametrize("shape", [(4, 4, 3), (0, 4, 4, 3), (1, 4, 4, 1)])
def test_image_batch_refuses_bad_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(MediaError, match="at least one frame with 3 or 4 channels"):
        ImageBatch(torch.zeros(shape), Fraction(25))
