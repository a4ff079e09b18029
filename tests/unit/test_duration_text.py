"""Times as users read them."""

from __future__ import annotations

import pytest

from latentsync.progress import duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (39.6, "40 s"),
        (61, "1 min"),
        (150, "2 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration_text_is_rounded(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
