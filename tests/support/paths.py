"""Where the repository and the files beside it are."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "parity" / "golden"
SHARED = REPOSITORY.parent / "shared"
"""Real footage, MediaPipe's model and recorded results of the official code. Absent on most machines."""
