"""`batch` as a user runs it: many jobs in, many files out, and a table that tells the truth."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from latentsync.cli import faces, run
from latentsync.cli.main import main
from scripts.sample_clip import Sample
from tests.support.batch_jobs import QUICK, check_outputs, finished_in, job_file, started, states, tiny_sample
from tests.support.cli_process import read_until, record_of


def batch(jobs: Path, out: Path, *more: object) -> int:
    return main(["batch", *map(str, [jobs, "--out", out, *QUICK, *more])])


@pytest.mark.usefixtures("stand_in_networks")
def test_batch_makes_what_run_makes_and_skips_it_later(
    good: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The networks are loaded once, and the faces are searched once."""
    calls: list[str] = []
    load, search = run.load_pipeline, faces.search
    monkeypatch.setattr(run, "load_pipeline", lambda *args: (calls.append("load"), load(*args))[1])
    monkeypatch.setattr(faces, "search", lambda *args: (calls.append("search"), search(*args))[1])
    jobs, out = job_file(tmp_path / "jobs.jsonl", good, 3), tmp_path / "out"
    assert batch(jobs, out) == 0
    assert sorted(calls) == ["load", "search"]
    assert states(out) == ["done"] * 3
    inodes = finished_in(out)
    assert batch(jobs, out) == 0
    assert states(out) == ["skipped"] * 3
    assert finished_in(out) == inodes
    assert "3 jobs: 3 skipped" in capsys.readouterr().out
    check_outputs(out, good, 3, tmp_path)


@pytest.mark.usefixtures("stand_in_networks")
def test_batch_failed_job_does_not_end_the_batch(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second job is for a person who is not in the video. Corrected, it is made, and the others are skipped."""
    jobs, out = job_file(tmp_path / "jobs.jsonl", good, 3), tmp_path / "out"
    lines = jobs.read_text(encoding="utf-8").splitlines()
    broken = [lines[0], json.dumps(json.loads(lines[1]) | {"face_index": 5}), lines[2]]
    jobs.write_text("\n".join(broken), encoding="utf-8")
    assert batch(jobs, out, "--retries", 2) == 1
    said = capsys.readouterr()
    assert "1 of 3 jobs failed" in said.err
    assert "failed    Line 2" in said.out
    report = json.loads((out / "batch.json").read_bytes())
    assert [(job["state"], job["tries"]) for job in report["jobs"]] == [("done", 1), ("failed", 3), ("done", 1)]
    assert "no person with this number" in report["jobs"][1]["reason"]
    assert record_of(out / "1.json")["outcome"] == "failed"
    jobs.write_text("\n".join(lines), encoding="utf-8")
    assert batch(jobs, out) == 0
    assert states(out) == ["skipped", "done", "skipped"]


@pytest.mark.slow
def test_batch_on_two_devices_makes_the_same_files(tmp_path: Path) -> None:
    clip = tiny_sample(tmp_path)
    jobs, out = job_file(tmp_path / "jobs.jsonl", clip, 3), tmp_path / "out"
    assert batch(jobs, out, "--devices", "cpu,cpu") == 0
    assert states(out) == ["done"] * 3
    check_outputs(out, clip, 3, tmp_path)


@pytest.mark.slow
def test_two_batches_on_one_folder_make_each_output_once(tmp_path: Path) -> None:
    clip = tiny_sample(tmp_path)
    jobs, out = job_file(tmp_path / "jobs.jsonl", clip, 6), tmp_path / "out"
    both = [started(jobs, out), started(jobs, out)]
    said = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    for i in range(1, 7):
        made = [text.count(f"Line {i}: done") for text in said]
        assert sum(made) == 1, said
    check_outputs(out, clip, 6, tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process without telling it")
@pytest.mark.slow
def test_batch_ended_by_signal_stops_its_processes(tmp_path: Path) -> None:
    jobs, out = job_file(tmp_path / "jobs.jsonl", tiny_sample(tmp_path), 6, steps=20), tmp_path / "out"
    process = started(jobs, out, "--devices", "cpu,cpu")
    assert process.stdout is not None
    said = read_until(process.stdout, b": done")
    process.send_signal(signal.SIGINT)
    said += process.stdout.read()  # ends when no process has the pipe any more
    assert process.wait() == 1, said
    assert b"Cancelled." in said
    assert b"Traceback" not in said, said.decode()
    assert {"done", "waiting"} <= set(states(out)) <= {"done", "waiting", "cancelled"}
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    assert [path for path in out.glob("*.mp4") if path.stat().st_size == 0] == []
