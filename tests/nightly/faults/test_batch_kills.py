"""A batch that is killed at random moments goes on where it was."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.batch_jobs import check_outputs, finished_in, job_file, started, states, tiny_sample

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process in one way only")

JOBS, KILLS = 20, 3


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use one thread in all processes. The last digits of the results depend on the number of threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kill_after(process: subprocess.Popen[bytes], pieces: int, begun: bytes) -> None:
    """Kill a batch when it has written that many pieces after `begun`."""
    assert process.stdout is not None
    said, count = b"", 0
    while count < pieces:
        piece = process.stdout.read(64)
        assert piece, said
        said += piece
        count += begun in said
    process.kill()
    process.stdout.read()  # ends when the worker processes have ended, too
    process.wait()
    process.stdout.close()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("devices", [(), ("--devices", "cpu,cpu")], ids=["one process", "two processes"])
def test_batch_killed_three_times_makes_each_output_once(tmp_path: Path, devices: tuple[str, ...]) -> None:
    clip = tiny_sample(tmp_path)
    jobs, out = job_file(tmp_path / "jobs.jsonl", clip, JOBS), tmp_path / "out"
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    before: dict[str, int] = {}
    for _ in range(KILLS):
        begun = b": done" if devices else b"lips:"
        kill_after(started(jobs, out, *devices), chance.randint(1, 4 if devices else 80), begun)
        after = finished_in(out)
        assert after.items() >= before.items(), f"made again, seed {seed}"
        before = after
    print(f"seed {seed}: {len(before)} of {JOBS} jobs were finished before the last start")
    with started(jobs, out, *devices) as process:
        said = process.communicate()[0].decode()
    assert process.returncode == 0, said
    assert finished_in(out).items() >= before.items(), f"made again, seed {seed}"
    expected = ["skipped" if str(i) in before else "done" for i in range(JOBS)]
    assert states(out) == expected, f"seed {seed}"
    check_outputs(out, clip, JOBS, tmp_path)
