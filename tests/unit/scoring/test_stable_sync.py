"""Which windows StableSyncNet compares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from latentsync.models.stable_syncnet import StableSyncNet
from latentsync.scoring.stable_sync import CROP_PX, score_stable_sync

FRAMES = 40


class FirstLevel(StableSyncNet):
    """Its feature of a window is the level of the window's first crop. That of any audio is 1."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.unused = nn.Parameter(torch.zeros(1))

    def visual(self, crops: Tensor) -> Tensor:
        return crops[:, :1, 0, 0]

    def audio(self, mel: Tensor) -> Tensor:
        return torch.ones(len(mel), 1)


def test_stable_sync_windows_span_no_cut() -> None:
    levels = np.arange(FRAMES, dtype=np.uint8)
    frames = (np.full((CROP_PX, CROP_PX, 3), level, np.uint8) for level in levels)
    matrices = np.tile(np.eye(2, 3), (FRAMES, 1, 1))
    shots = (np.arange(FRAMES) >= 20).astype(int)
    score = score_stable_sync(frames, matrices, shots, torch.zeros(FRAMES * 640), FirstLevel())
    first_levels = np.rint((np.nanmax(score.cosines, axis=1) + 1) * 127.5)
    assert first_levels.tolist() == [0, 20]
