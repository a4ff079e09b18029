"""The whole matrix of `tests/support/oracle.py`: every case agrees with ffmpeg, or is refused with a sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import oracle
from tests.support.ffmpeg import needs_ffmpeg


@needs_ffmpeg
def test_oracle_matrix_has_no_wrong_case() -> None:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for case in oracle.matrix():
        with TemporaryDirectory() as folder:
            verdict, reason = oracle.check(case, Path(folder))
        counts[verdict] += 1
        if verdict != "right":
            print(f"{case} {verdict}: {reason}", flush=True)
        if verdict == "wrong":
            wrong.append(str(case))
    print(f"{counts.total()} cases, {counts['right']} right, {counts['refused']} refused, {counts['wrong']} wrong")
    assert counts.total() >= 500
    assert not wrong
