"""The benchmark of a device: every case becomes a row, whatever the device cannot do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latentsync import bench
from latentsync.cli.main import main
from latentsync.sampling.settings import SPEEDS
from latentsync.weights.catalog import MODELS
from tests.support import pretend_device
from tests.support.pretend_device import Device

CPU = torch.device("cpu")
SHORT = bench.Case("1.5", "fp32", "fast", 3, 1)


@pytest.fixture
def device() -> Iterator[Device]:
    installed = pretend_device.install()
    with installed.counting(is_available=True):
        yield installed


def rows_of(*cases: bench.Case, device: torch.device = CPU, minutes: float = float("inf")) -> list[bench.Row]:
    return list(bench.run_cases(cases, device, tiny=True, minutes=minutes))


def test_bench_lists_every_combination_once() -> None:
    cases = bench.list_cases()
    assert len(set(cases)) == len(cases) == len(MODELS) * len(bench.PRECISIONS) * len(SPEEDS) * 4
    assert {(case.frames, case.windows) for case in cases} == {(16, 1), (250, 1), (250, 2), (250, 4)}


def test_bench_begins_with_the_cases_of_quick() -> None:
    quick = bench.list_cases(quick=True)
    assert bench.list_cases()[: len(quick)] == quick
    assert quick[0] == bench.Case("1.5", "fp16", "balanced", 16, 1)
    assert Counter(case.speed for case in quick) == dict.fromkeys(SPEEDS, len(MODELS))


def test_bench_measures_every_stage() -> None:
    (row,) = rows_of(SHORT)
    assert row.note == ""
    assert min(row.encode or 0, row.sample or 0, row.decode or 0) > 0
    assert row.allocated_bytes is None, "a CPU does not report it"


@pytest.mark.slow
def test_bench_runs_each_precision() -> None:
    rows = rows_of(*(SHORT._replace(precision=name, frames=1) for name in bench.PRECISIONS))
    assert [row.note for row in rows] == [""] * len(bench.PRECISIONS)


@pytest.mark.slow
def test_bench_unsupported_precision_is_a_row_with_a_reason(device: Device) -> None:
    with device.counting(forbidden=pretend_device.MPS_FORBIDDEN):
        fp8, fp32 = rows_of(
            SHORT._replace(precision="fp8", frames=1), SHORT._replace(frames=1), device=torch.device(device.name)
        )
    assert fp8.total is None
    assert fp8.note.startswith("fp8 does not run on this device: Cannot convert a tensor to torch.float8_e4m3fn")
    assert fp32.total is not None, "the next case runs"


def test_bench_out_of_memory_is_a_row_with_a_reason(device: Device) -> None:
    with device.counting(limit_bytes=device.used_bytes + 2**20):
        (row,) = rows_of(SHORT, device=torch.device(device.name))
    assert row.total is None
    assert row.note.startswith("Out of memory: ")


def test_bench_says_that_a_batch_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = bench.synthetic_pipeline("fp32", CPU, tiny=True)
    forward = type(pipeline.unet).forward

    def limited(self: object, x: torch.Tensor, *args: object, **kwargs: object) -> object:
        if len(x) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(type(pipeline.unet), "forward", limited)
    row = bench.measure(pipeline, SHORT._replace(frames=32, windows=2), tiny=True)
    assert (row.total, row.note) == (None, "Out of memory: 2 windows do not fit into VRAM at once.")


def test_bench_without_time_skips_every_case() -> None:
    (row,) = rows_of(SHORT, minutes=0)
    assert row.is_skipped
    table = bench.markdown(bench.describe_machine(CPU), [row], tiny=True)
    assert table.endswith("Not measured within 0 minutes: 1.5 fp32 fast, 3 frames, 1 at once.\n")


@pytest.mark.slow
def test_bench_command_prints_the_rows_of_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "list_cases", lambda **_: [SHORT])
    monkeypatch.delitem(MODELS, "1.6")  # a CPU is slow in fp16
    assert main(["bench", "--tiny", "--profile", "--json", str(tmp_path / "bench.json")]) == 0
    report = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("| 1.5")]
    (row,) = report["rows"]
    assert [cell.strip() for cell in line.split("|")][1:6] == ["1.5", "fp32", "fast", "3", "1"]
    assert line.split("|")[6].strip() == f"{row['total']:.3g}"
    assert row["total"] == pytest.approx(row["encode"] + row["sample"] + row["decode"])
    assert report["machine"]["torch"] in printed
    assert list(report["profile"]) == ["1.5"]
    assert all("aten::" in text and text in printed for text in report["profile"].values())


def test_bench_command_needs_an_accelerator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert "torch finds no accelerator" in capsys.readouterr().err
