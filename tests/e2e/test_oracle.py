"""Media that ffmpeg made, read by us and by ffmpeg: frames, times, sizes, colors and sound agree.

`tests/nightly/media/test_oracle_matrix.py` reads the whole matrix.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support import oracle
from tests.support.ffmpeg import needs_ffmpeg

pytestmark = needs_ffmpeg

SAMPLES = 40


@pytest.mark.parametrize("part", range(4))
def test_oracle_sample_agrees_with_ffmpeg(tmp_path: Path, part: int) -> None:
    """Every container with every codec, and more of the matrix at regular steps."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number, case in enumerate(oracle.sample(SAMPLES)[part::4]):
        folder = tmp_path / str(number)
        folder.mkdir()
        verdict, reason = oracle.check(case, folder)
        counts[verdict] += 1
        if verdict != "right":
            wrong.append(f"{case} {verdict}: {reason}")
    print(f"{counts.total()} cases, {counts['right']} right, {counts['refused']} refused")
    assert not wrong
