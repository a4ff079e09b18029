"""How strongly each output frame shows the new lips: they come and go over a few frames, not at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FADE_FRAMES = 3


def strengths(active: Sequence[bool] | np.ndarray, shots: Sequence[int] | np.ndarray) -> np.ndarray:
    """Strength of the lips in each output frame, 0 to 1.

    Lips that begin or end with the clip or with a shot do so at once: nothing is there to fade from.

    Args:
        active: whether the frame has new lips.
        shots: number of the shot that the frame shows; a change is a cut.

    Returns:
        float32 (frames,): 0 where not active, rising to 1 over FADE_FRAMES inside the run.
    """
    present = np.asarray(active, bool)
    level = np.where(present, 1.0, 0.0).astype(np.float32)
    for i in range(1, len(present)):
        if present[i] != present[i - 1] and shots[i] == shots[i - 1]:
            _ramp(level, i, 1 if present[i] else -1)
    return level


def _ramp(level: np.ndarray, edge: int, step: int) -> None:
    """Lower the active frames next to an edge, going away from it."""
    place = edge if step > 0 else edge - 1
    for done in range(1, FADE_FRAMES + 1):
        if not 0 <= place < len(level) or level[place] == 0:
            return
        level[place] = min(level[place], done / (FADE_FRAMES + 1))
        place += step
