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
def test_duration_is_rounded(pack: ModuleType, seconds: float, text: str) -> None:
    assert pack.live_preview.duration(seconds) == text


def test_live_preview_stops_when_memory_runs_out(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on without images."""
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    vae = FullVAE()
    preview = pack.live_preview.LivePreview(vae)
    step = StepOutput(range(16), 1, 1, torch.zeros(1, 4, 16, 8, 8))
    assert [preview(step, done, 3) for done in (1, 2, 3)] == [None] * 3
    assert vae.calls == 1
