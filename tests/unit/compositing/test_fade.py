from __future__ import annotations

import pytest

from latentsync.fade import strengths


def levels(active: str, shots: str | None = None) -> list[float]:
    return strengths([mark == "x" for mark in active], shots or "1" * len(active)).tolist()


def test_lips_fade_over_three_frames_on_both_sides_of_a_gap() -> None:
    assert levels("xxxxx...xxxxx") == [1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1]


def test_the_ends_of_the_clip_and_of_a_shot_are_not_faded() -> None:
    assert levels("xxxxx") == [1] * 5
    assert levels("xxxx....", "11112222") == [1, 1, 1, 1, 0, 0, 0, 0]
    assert levels("..xxxx", "112222") == [0, 0, 1, 1, 1, 1]


def test_a_short_run_between_gaps_never_reaches_full_strength() -> None:
    assert levels("..xxx..") == [0, 0, 0.25, 0.5, 0.25, 0, 0]
    assert levels(".x.") == [0, 0.25, 0]


@pytest.mark.parametrize("active", ["x", ".", "...", "xx.."])
def test_frames_without_lips_have_no_strength(active: str) -> None:
    assert [level == 0 for level in levels(active)] == [mark == "." for mark in active]
