"""Every benchmark can be imported and explains its options. Two of them compute what the product computes."""

from __future__ import annotations

import importlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu, plain, preview, roofline, sampler, score
from latentsync.audio.mono import MonoSound
from latentsync.audio.waveform import Waveform
from latentsync.oom import BatchLimit
from latentsync.output.video_writer import VideoWriter
from latentsync.sampling.denoise import denoise
from latentsync.sampling.sampler import CFG_BATCH
from latentsync.sampling.settings import SamplerSettings
from tests.support.paths import GOLDEN, REPOSITORY

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


@pytest.mark.slow
def test_live_preview_costs_less_than_two_percent() -> None:
    """Counted where it costs most: at the smallest face crop and with the fewest steps of a preset."""
    stages = roofline.count_stages(roofline.Networks.on_meta(tiny=False), roofline.SIDES["1.5"])
    assert 0.01 < preview.counted_share(stages, SamplerSettings().at_speed("fast")) < 0.02


def test_score_benchmark_reads_the_sound_of_the_measured_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = list[MonoSound]()
    monkeypatch.setattr(score, "score_track", lambda track, sound, syncnet: sounds.append(sound))  # noqa: ARG005
    speech = Waveform(torch.zeros(1, 96_000), 48_000)
    with VideoWriter(tmp_path / "a.mp4", rate=Fraction(25), height=64, width=64, crf=30, waveform=speech) as writer:
        for _ in range(50):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    monkeypatch.setattr(sys, "argv", ["score", str(tmp_path / "a.mp4"), "--seconds", "1", "--no-faces", "--no-network"])
    score.main()
    assert [sound.duration_seconds for sound in sounds] == [1]


def test_gpu_benchmark_needs_an_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert capsys.readouterr().out.startswith("torch finds no accelerator on this machine")


def test_gpu_benchmark_names_the_minutes_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the first two parts used all of them."""
    for part in ("parity_rows", "official_rows"):
        monkeypatch.setattr(gpu, part, lambda device, tiny: iter([]))  # noqa: ARG005
    assert gpu.main(["--device", "cpu", "--tiny", "--minutes", "1e-9", "--folder", str(tmp_path)]) == 0
    assert "Not measured within 1e-09 minutes: " in capsys.readouterr().out


def test_gpu_benchmark_compares_each_precision_with_the_record() -> None:
    """fp32 equals the record as far as float32 sums in another order allow. The others differ by their rounding."""
    with np.load(GOLDEN / "unet.npz") as arrays:
        (case,) = (case for case in json.loads(str(arrays["meta"])) if case["name"] == "f1")
        rows = list(gpu.case_rows("unet", case, arrays["f1"], torch.device("cpu")))
    errors = {row["precision"]: row["against the record"] for row in rows}
    assert [row["note"] for row in rows] == [""] * len(gpu.PRECISIONS)
    assert errors["fp32"] < 1e-4 < errors["fp16"] < errors["bf16"] < errors["fp8"] < 0.5
    assert rows[0]["precision"] == "fp32"
    assert rows[0]["against fp32"] == 0
