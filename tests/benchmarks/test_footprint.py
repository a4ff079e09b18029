"""The memory model counts what lives, once, and only while it lives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import Linear, Sequential
from torch.nn import functional as F

from benchmarks import footprint

MB = 1_000_000


def empty() -> torch.Tensor:
    return torch.empty(MB, dtype=torch.uint8, device="meta")


def test_a_storage_counts_once_and_until_it_dies() -> None:
    with footprint.Live() as live:
        first = empty()
        view = first[:10].view(2, 5)
        second = first + 1
        assert live.size == 2 * MB
        del first, second
        assert live.size == MB  # the view keeps its storage
        del view
        assert live.size == 0


def test_the_peak_is_of_what_lives_together() -> None:
    def one_after_the_other() -> None:
        for _ in range(3):
            empty()

    with footprint.Live() as live:
        kept = empty()
        assert live.over(one_after_the_other).size == 2 * MB
        assert live.size == kept.nbytes


def test_makers_are_named_and_weights_do_not_count() -> None:
    with torch.device("meta"):
        network = Sequential(Linear(10, 20, bias=False), Linear(20, 30, bias=False))
        x = torch.empty(1, 10)
    with footprint.Live(net=network) as live, torch.no_grad():
        peak = live.over(lambda: network(x))
    assert peak.size == 4 * (20 + 30)
    assert peak.where.startswith("net.1: ")
    assert {held.maker.partition(":")[0] for held in peak.held} == {"net.0", "net.1"}


def test_attention_has_no_scores() -> None:
    query = torch.empty(1, 8, 1000, 40, device="meta")
    with footprint.Live() as live, footprint.Fused():
        made = F.scaled_dot_product_attention(query, query, query)
    assert live.peak.size == made.nbytes == query.nbytes


def test_less_at_once_takes_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "footprint.json"
    footprint.main(["--tiny", "--frames", "4", "--json", str(told)])
    made = json.loads(told.read_text(encoding="utf-8"))
    large, small = ({name: peak["GB"] for name, peak in made["phases"][version].items()} for version in ("1.6", "1.5"))
    assert large["whole step, 2 at once"] > 1.5 * large["whole step, 1 at once"]
    assert large["whole step, 2 at once"] > large["shallow step, 2 at once"] > large["between steps, 2 at once"] > 0
    assert large["VAE decode, 4 at once"] > large["VAE decode, 2 at once"] > large["VAE decode, 1 at once"]
    assert all(
        3 < large[phase] / small[phase] < 5 for phase in large if "between" not in phase
    )  # four times the pixels
    rows = {(row["model"], row["precision"], row["way"]): row["all GB"] for row in made["totals"]}
    assert rows["1.6", "fp16", "default"] > rows["1.6", "fp16", "low memory"] > rows["1.6", "fp8", "low memory"]
    assert "| 1.6 | fp16 | default |" in capsys.readouterr().out
