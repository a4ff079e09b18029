"""Recorded alignment results of the official code, their inputs, and the tolerance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.support import procedural
from tests.support.paths import GOLDEN

ALIGN = np.load(GOLDEN / "align.npz")
CASES: list[dict[str, Any]] = json.loads(str(ALIGN["meta"]))


def frame(case: dict[str, Any], index: int) -> np.ndarray:
    return procedural.frame(index, case["height"], case["width"])


def points(case: dict[str, Any]) -> np.ndarray:
    """float64 (frames, 3, 2)."""
    size = case["height"], case["width"], case["scale"]
    return np.stack([procedural.points(index, *size) for index in range(case["frames"])])


def waves(resolution: int) -> np.ndarray:
    """The smooth crop that is pasted: float32 (3, R, R) in [-0.8, 0.8]."""
    y, x = np.mgrid[0:resolution, 0:resolution] / resolution
    return (0.8 * np.stack([np.sin(6 * x), np.cos(5 * y), np.sin(4 * (x + y))])).astype(np.float32)


def assert_pixels_match(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Mean 0.7 and 99.9 % within 3 levels: other bilinear and bicubic kernels, then truncation."""
    apart = np.abs(ours.astype(int) - theirs.astype(int))
    assert apart.mean() <= 0.7
    assert (apart <= 3).mean() >= 0.999
