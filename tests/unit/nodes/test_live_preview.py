"""The live preview of the Sampler without a server."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from latentsync.sampling.sampler import StepOutput


class FullVAE:
    """Finds no memory."""

    calls = 0

    def decode_small(self, latents: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        raise torch.OutOfMemoryError(f"CUDA out of memory for {tuple(latents.shape)}")


class FullLatents:
    """Latents on a GPU without memory for the result of an operation."""

    def __getitem__(self, index: object) -> FullLatents:
        return self

    def isfinite(self) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("latents", "calls"), [(torch.zeros(1, 4, 16, 8, 8), 1), (FullLatents(), 0)])
def test_live_preview_stops_when_memory_runs_out(
    pack: ModuleType, monkeypatch: pytest.MonkeyPatch, latents: Any, calls: int
) -> None:
    """The run goes on without images."""
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    vae = FullVAE()
    preview = pack.live_preview.LivePreview(vae)
    step = StepOutput(range(16), 1, 1, latents)
    assert [preview(step, done, 3) for done in (1, 2, 3)] == [None] * 3
    assert vae.calls == calls
