from __future__ import annotations

import pytest

from latentsync.compositing.compositor import opacities


def levels(active: str, shots: str | None = None) -> list[float]:
    return opacities([mark == "x" for mark in active], shots or "1" * len(active)).tolist()


def test_fade_is_three_frames_around_a_gap() -> None:
    assert levels("xxxxx...xxxxx") == [1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_fade_skips_clip_ends_and_shot_ends() -> None:
    assert levels("xxxxx") == [1] * 5
    assert levels("xxxx....", "11112222") == [1, 1, 1, 1, 0, 0, 0, 0]
    assert levels("..xxxx", "112222") == [0, 0, 1, 1, 1, 1]


def test_fade_of_short_run_stays_below_full_opacity() -> None:
    assert levels("..xxx..") == [0, 0, 0.25, 0.5, 0.25, 0, 0]
    assert levels(".x.") == [0, 0.25, 0]


@pytest.mark.parametrize("active", ["x", ".", "...", "xx.."])
def test_fade_without_lips_is_zero(active: str) -> None:
    assert [level == 0 for level in levels(active)] == [mark == "." for mark in active]
