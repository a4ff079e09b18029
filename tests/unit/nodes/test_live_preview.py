"""The live preview of the Sampler without a server."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from latentsync.sampling.sampler import StepOutput


class FullVAE:
    """Finds no memory."""

    calls = 0

    def decode_small(self, latents: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        raise torch.OutOfMemoryError(f"CUDA out of memory for {tuple(latents.shape)}")


def test_live_preview_stops_when_memory_runs_out(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on without images."""
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    vae = FullVAE()
    preview = pack.live_preview.LivePreview(vae)
    step = StepOutput(range(16), 1, 1, torch.zeros(1, 4, 16, 8, 8))
    assert [preview(step, done, 3) for done in (1, 2, 3)] == [None] * 3
    assert vae.calls == 1
