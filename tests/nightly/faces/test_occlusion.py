"""Objects of known shape moved across whole real clips. The segmenter is a stand-in: it knows the shape, and errs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.occluders import KINDS, check_occlusion


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("clip", "frames"), [("demo1", 250), ("demo2", 502)])
def test_occlusion_of_a_whole_clip(shared: Path, clip: str, frames: int, kind: str) -> None:
    check_occlusion(shared, clip, kind, frames)
