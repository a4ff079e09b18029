"""Windows: every sampled frame is in them, and cross-fading is a weighted mean."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from latentsync.models.constants import WINDOW_FRAMES
from latentsync.sampling.settings import MAX_OVERLAP
from latentsync.sampling.windows import crossfade, split_windows


@given(st.lists(st.integers(0, 2), max_size=80), st.integers(0, MAX_OVERLAP))
def test_crossfade_weights_of_every_frame_sum_to_one(shots: list[int], overlap: int) -> None:
    windows = list(split_windows(shots, WINDOW_FRAMES, overlap))
    # the latents of window k are its unit vector, so the result holds the weights
    units = torch.eye(max(len(windows), 1), dtype=torch.float64)
    samples = ((window, units[k].expand(len(window), -1)) for k, window in enumerate(windows))
    ranges, weights = [], []
    for frames, latents in crossfade(samples):
        assert len(frames) == len(latents) > 0
        ranges.append(frames)
        weights += zip(frames, latents, strict=True)
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    assert [i for i, _ in weights] == [i for i, shot in enumerate(shots) if shot]
    for i, weight in weights:
        assert float(weight.sum()) == pytest.approx(1.0)
        windows_of_frame = [k for k, window in enumerate(windows) if i in window]
        assert [k for k, share in enumerate(weight.tolist()) if share > 0] == windows_of_frame


def test_crossfade_holds_back_one_window() -> None:
    num_read = 0

    def samples() -> Iterator[tuple[range, Tensor]]:
        nonlocal num_read
        for window in split_windows([1] * 100, 16, 4):
            num_read += 1
            yield window, torch.zeros(len(window), 4, 2, 2)

    for num_yielded, _ in enumerate(crossfade(samples()), start=1):
        assert num_read <= num_yielded + 1
