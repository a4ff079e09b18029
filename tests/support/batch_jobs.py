"""A batch of tiny jobs as a process, and what it must have made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from latentsync.cli.main import main
from scripts.sample_clip import Sample, make_sample
from tests.support.cli_process import record_of
from tests.support.paths import REPOSITORY

QUICK = ("--miniature", "--steps", "1", "--cfg", "1", "--crf", "0")
"""Without loss: x264 may give the same pixels other bytes on a busy machine otherwise."""


def tiny_sample(folder: Path) -> Sample:
    """A clip of 6 frames and its recording."""
    return make_sample(folder / "tiny", seconds=0.24)


def job_file(path: Path, good: Sample, count: int, **more: Any) -> Path:
    """`count` jobs on one video, each with another seed: `0.mp4`, `1.mp4` ..."""
    files = {"video": str(good.video), "audio": str(good.audio), "face_landmarks": str(good.landmarks)}
    jobs = [{**files, "output": f"{i}.mp4", "seed": i, **more} for i in range(count)]
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    return path


def started(jobs: Path, out: Path, *more: object) -> subprocess.Popen[bytes]:
    """A batch as a process, with both streams in one pipe."""
    command = [sys.executable, "-m", "latentsync", "batch", jobs, "--out", out, *QUICK, *more]
    return subprocess.Popen(
        list(map(str, command)), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )


def states(out: Path) -> list[str]:
    """The state of each job in the report of a batch."""
    return [job["state"] for job in json.loads((out / "batch.json").read_bytes())["jobs"]]


def finished_in(out: Path) -> dict[str, int]:
    """The inode of each output whose record says that it is done."""
    records = [path for path in out.glob("*.json") if path.stem.isdecimal()]
    return {
        path.stem: path.with_suffix(".mp4").stat().st_ino for path in records if record_of(path)["outcome"] == "done"
    }


def check_outputs(out: Path, good: Sample, count: int, folder: Path) -> None:
    """All outputs are there, no other file is, and each equals that of `run`, byte for byte (on a sample of two)."""
    names = {f"{i}{suffix}" for i in range(count) for suffix in (".mp4", ".json")}
    assert {path.name for path in out.iterdir()} == {*names, "batch.json"}
    assert len(finished_in(out)) == count
    videos = {(out / f"{i}.mp4").read_bytes() for i in range(count)}
    assert len(videos) == count, "each seed gives another video"
    for i in (0, count - 1):
        alone = folder / f"alone {i}.mp4"
        flags = [*QUICK, "--seed", i, "--face-landmarks", good.landmarks]
        assert main(["run", *map(str, [good.video, good.audio, "-o", alone, *flags])]) == 0
        assert alone.read_bytes() == (out / f"{i}.mp4").read_bytes()
