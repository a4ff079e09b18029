"""The main process of `run --cluster` keeps no crops and no decoded faces of a long video in RAM."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from scripts.sample_clip import Sample, make_sample
from tests.support.paths import REPOSITORY

SHORT_SECONDS, LONG_SECONDS = 30, 120  # of the sound. The video and the result have two thirds of it
MAX_GROWTH_MIB = 110
"""61 were measured, most of them the sound and its features. All crops of 60 s more have 70, and all decoded faces
280."""
PRIVATE = re.compile(r"^Private_(?:Clean|Dirty|Hugetlb): +(\d+) kB$", re.MULTILINE)


def private_peak_mib(sample: Sample, output: Path) -> float:
    """Peak of the RAM of the main process alone, without memory that it shares with Ray's processes."""
    flags = ["--miniature", "--steps", 1, "--cfg", 1, "--length-mode", "shortest", "--cluster", "local"]
    files = [sample.video, sample.audio, "-o", output, "--face-landmarks", sample.landmarks]
    command = [sys.executable, "-m", "latentsync", "run", *map(str, [*files, *flags, "--cpus-per-worker", 1])]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            continue  # it has just ended
        peak = max(peak, sum(map(int, PRIVATE.findall(rollup))))
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
    assert process.returncode == 0
    return peak / 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the private memory of a process")
def test_cluster_driver_memory_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    peaks: list[float] = []
    for seconds in (SHORT_SECONDS, LONG_SECONDS):
        sample = make_sample(tmp_path / str(seconds), seconds)
        landmarks = json.loads(sample.landmarks.read_text(encoding="utf-8"))
        landmarks["frames"] = landmarks["frames"][:1]  # for all frames: JSON of each frame would be 57 KB in RAM
        sample.landmarks.write_text(json.dumps(landmarks), encoding="utf-8")
        peaks.append(private_peak_mib(sample, tmp_path / f"{seconds}.mp4"))
    assert peaks[1] - peaks[0] < MAX_GROWTH_MIB, peaks
