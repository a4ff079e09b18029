"""Every benchmark can be imported and explains its options."""

from __future__ import annotations

import importlib
import sys

import pytest

from benchmarks import plain, sampler
from latentsync.oom import BatchLimit
from latentsync.sampling.denoise import denoise
from latentsync.sampling.sampler import CFG_BATCH
from latentsync.sampling.settings import SamplerSettings
from tests.support.paths import REPOSITORY

COMMANDS = [
    path.stem
    for path in sorted((REPOSITORY / "benchmarks").glob("*.py"))
    if "ArgumentParser(" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_explains_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("interval", [1, 2])
def test_plain_computation_equals_the_product(interval: int) -> None:
    """1e-4 of the largest value: float32 sums in another order. The interval of 2 has full and shallow passes."""
    options = sampler.parsed(["--tiny", "--side", "8", "--frames", "3"])
    window = sampler.Window.from_options(options)
    given = window.noise, window.conditioning, window.audio
    settings = SamplerSettings(num_inference_steps=3, cache_interval=interval)
    expected = plain.denoise(window.weights, *given, settings)
    *_, latents = denoise(window.unet, *given, settings, BatchLimit(CFG_BATCH, "the UNet"))
    assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()
