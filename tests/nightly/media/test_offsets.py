"""The offsets of real clips whose own sound was moved, from the mouth opening alone. Needs MediaPipe's model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from latentsync.weights.catalog import FACE_LANDMARKER
from tests.offsets import CLIPS, MOVES_MS, find


@pytest.mark.parametrize("clip", CLIPS)
def test_offsets_of_real_clips_are_found(shared: Path, tmp_path: Path, clip: str) -> None:
    model = tmp_path / FACE_LANDMARKER.path
    model.parent.mkdir()
    model.symlink_to(shared / "models" / "face_landmarker.task")
    results = list(find(clip, tmp_path))
    assert [found.moved_ms for found in results] == list(MOVES_MS)
    assert all(found.is_right for found in results), [found.result.offset_ms for found in results]
    steps = [later.result.offset_ms - found.result.offset_ms for found, later in pairwise(results)]
    assert all(abs(step + 200) <= 40 for step in steps), steps
