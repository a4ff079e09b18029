"""Objects of known shape moved across real faces. The segmenter is a stand-in: it knows the shape, and errs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.occluders import check_occlusion

FRAMES = 40


@pytest.mark.parametrize("kind", ["hand", "microphone", "beard"])
def test_occlusion_of_a_real_face(shared: Path, kind: str) -> None:
    check_occlusion(shared, "demo1", kind, FRAMES)
