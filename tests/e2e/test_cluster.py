"""`batch --cluster` and `run --cluster` on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.audio.features import AudioFeatures
from latentsync.audio.waveform import Waveform
from latentsync.batch import Finished
from latentsync.cli.cluster import CALLS_EACH
from latentsync.cli.failure import error_of
from latentsync.cli.main import main
from latentsync.cluster import connection
from latentsync.cluster.actors import Actors
from latentsync.cluster.shared_files import problems
from latentsync.cluster.windows import ClusterWorkers, new_worker
from latentsync.compositing.compositor import decode_crops
from latentsync.errors import DependencyError, UsageError
from latentsync.faces.face_track import FaceTrack
from latentsync.fileio import temp_path
from latentsync.pipeline import LipSyncPipeline
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import Sample
from tests.support.batch_jobs import QUICK, finished_in, job_file, started, states, tiny_sample
from tests.support.cli_process import read_until, record_of
from tests.support.image_clip import Clip
from tests.support.paths import REPOSITORY

JOBS = 6
NODE_SECONDS = 120  # for a node to start
TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs, and two nodes with one CPU each. They demand a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # On a busy machine, workers with Ray's niceness of 15 get too little CPU time, and nodes need more than Ray's
        # 30 s to start
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_gcs_server_port_wait_time_s", str(NODE_SECONDS))
        patch.setenv("RAY_agent_register_timeout_ms", str(1000 * NODE_SECONDS))
        # Ray reads the environment when it is imported
        ray_cluster = pytest.importorskip("ray.cluster_utils", reason="needs Ray")
        started_ = ray_cluster.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in an actor with one CPU: the last digits depend on the number of threads
        try:
            started_.workers = [started_.add_node(wait=False, num_cpus=1) for _ in range(2)]
            started_.wait_for_nodes(timeout=NODE_SECONDS)
            yield started_
        finally:
            torch.set_num_threads(threads)
            started_.shutdown()


class Observed:
    """A pool that counts its tasks and the calls of its busiest actor. It kills the actor of one of the tasks."""

    def __init__(self, actors: Actors, kill_after: int) -> None:
        self.actors = actors
        self.kill_after = kill_after
        self.most_calls = self.tasks = 0

    def idle(self) -> Sequence[Hashable]:
        return self.actors.idle()

    def start(self, worker: Hashable, task: Any) -> None:
        self.actors.start(worker, task)
        self.tasks += 1
        slots = self.actors._slots  # pyright: ignore[reportPrivateUsage]
        self.most_calls = max(self.most_calls, *(len(slot.calls) for slot in slots))
        if self.tasks == self.kill_after:
            assert isinstance(worker, int)
            self.actors._ray.kill(slots[worker].actor, no_restart=True)  # pyright: ignore[reportPrivateUsage]

    def wait(self, seconds: float) -> Iterator[Finished]:
        return self.actors.wait(seconds)

    def close(self) -> None:
        self.actors.close()


@pytest.mark.slow
def test_one_video_on_cluster_equals_one_process(cluster: Any) -> None:
    """32 windows over two actors, of which one is killed. Latents and images are equal to the bit."""
    count, side = 128, 96
    frames = np.random.default_rng(2).integers(0, 256, (count, side, side, 3), np.uint8)
    points = np.tile(np.array([[36.0, 36], [60, 36], [48, 50]]), (count, 1, 1))
    track = FaceTrack(Clip(frames), points, tuple(range(4, count, 4)), "zero-lag")
    states = torch.randn(2 * count, 5, 384, generator=torch.Generator().manual_seed(1))
    features = AudioFeatures(states, Waveform(torch.zeros(1, count * 640), 16000))
    settings = SamplerSettings(num_inference_steps=2, overlap=2)
    load = partial(LipSyncPipeline.untrained, resolution=64)
    pipeline = load()
    alone = pipeline.sample(track, features, settings)
    expected = list(decode_crops(alone))
    with connection.connect(cluster.address):
        actors = Actors(partial(new_worker, load), error_of, None, [], CALLS_EACH)
        pool = Observed(actors, kill_after=10)
        with closing(pool):
            workers = ClusterWorkers(pool)
            lips = replace(pipeline, unet=None, vae=None, workers=workers).sample(track, features, settings)
            windows, pool.kill_after = pool.tasks, 0
            assert np.array_equal(list(decode_crops(lips)), expected)
    assert 32 < windows <= 32 + CALLS_EACH, "only the windows of the killed worker run again"
    assert pool.most_calls == CALLS_EACH
    assert torch.equal(lips.latents, alone.latents)
    assert lips.latent_index.tolist() == alone.latent_index.tolist() == list(range(count))


@pytest.mark.slow
def test_run_on_cluster_makes_the_file_of_run(cluster: Any, good: Sample, tmp_path: Path) -> None:
    """A batch skips the result: where it was made is not part of the settings."""
    files = [good.video, good.audio, "--face-landmarks", good.landmarks]
    alone, out = tmp_path / "alone.mp4", tmp_path / "0.mp4"
    assert main(["run", *map(str, [*files, "-o", out, *QUICK, "--seed", 0, "--cluster", cluster.address])]) == 0
    assert main(["run", *map(str, [*files, "-o", alone, *QUICK, "--seed", 0])]) == 0
    assert out.read_bytes() == alone.read_bytes()
    assert main(["batch", *map(str, [job_file(tmp_path / "jobs.jsonl", good, 1), "--out", tmp_path, *QUICK])]) == 0
    assert states(tmp_path) == ["skipped"]


@pytest.mark.slow
def test_batch_on_cluster_survives_the_loss_of_a_node(cluster: Any, tmp_path: Path) -> None:
    """One of two nodes is killed when one job is done. Every file equals that of one process."""
    clip = tiny_sample(tmp_path)
    jobs, out = job_file(tmp_path / "jobs.jsonl", clip, JOBS, steps=4), tmp_path / "out"
    process = started(jobs, out, "--cluster", cluster.address)
    assert process.stdout is not None
    said = read_until(process.stdout, b": done")
    cluster.remove_node(cluster.workers[0], allow_graceful=False)
    said += process.stdout.read()
    cluster.workers[0] = cluster.add_node(wait=False, num_cpus=1)  # for the next test
    cluster.wait_for_nodes(timeout=NODE_SECONDS)
    assert process.wait() == 0, said.decode()
    assert b"Its worker was lost" in said, said.decode()
    assert states(out) == ["done"] * JOBS
    alone = tmp_path / "alone"
    assert main(["batch", *map(str, [jobs, "--out", alone, *QUICK])]) == 0
    for i in range(JOBS):
        assert (out / f"{i}.mp4").read_bytes() == (alone / f"{i}.mp4").read_bytes(), i
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def cancel_after(process: subprocess.Popen[bytes], text: bytes) -> None:
    """Press Ctrl-C when a command has printed a text. The command then ends, and says that it was cancelled."""
    assert process.stdout is not None
    said = read_until(process.stdout, text)
    process.send_signal(signal.SIGINT)
    said += process.stdout.read()
    assert process.wait() == 1, said.decode()
    assert b"Cancelled." in said
    assert b"Traceback" not in said, said.decode()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process without telling it")
def test_batch_on_cluster_leaves_nothing_half_made(cluster: Any, tmp_path: Path) -> None:
    clip = tiny_sample(tmp_path)
    jobs, out = job_file(tmp_path / "jobs.jsonl", clip, 4, steps=20), tmp_path / "out"
    process = started(jobs, out, "--cluster", cluster.address)
    cancel_after(process, b": done")
    assert {"done"} < set(states(out)) <= {"done", "waiting", "cancelled"}
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    # A worker can die after it renames its video and before its record says "done". The next batch makes it again.
    videos, finished = list(out.glob("*.mp4")), finished_in(out)
    assert [len(list(VideoFile(path).read(range(6)))) for path in videos] == [6] * len(videos)
    assert main(["batch", *map(str, [jobs, "--out", out, *QUICK])]) == 0
    assert states(out) == ["skipped" if str(i) in finished else "done" for i in range(4)]
    after = finished_in(out)
    assert len(after) == 4
    assert after.items() >= finished.items()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process without telling it")
def test_run_on_cluster_cancelled_leaves_nothing_half_made(cluster: Any, good: Sample, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    files = [good.video, good.audio, "-o", out, "--face-landmarks", good.landmarks]
    flags = ["--miniature", "--steps", 200, "--cluster", cluster.address]
    command = [sys.executable, "-m", "latentsync", "run", *map(str, [*files, *flags])]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    cancel_after(process, b"lips:")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert record_of(tmp_path / "out.json")["outcome"] == "cancelled"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cluster", "local"], 'With "--cluster", "version" cannot be auto'),
        (["--cluster", "127.0.0.1:9", "--miniature"], "No cluster answers at 127.0.0.1:9"),
        (["--cluster", "local", "--miniature", "--cpus-per-worker", "0"], '"--cpus-per-worker" cannot be 0'),
    ],
)
def test_run_on_cluster_tells_mistakes_first(
    good: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    assert main(["run", *map(str, [good.video, good.audio, "-o", tmp_path / "out.mp4"]), *flags]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid:6379", "192.0.2.77:6379"])
def test_cluster_that_does_not_answer_is_one_sentence(address: str) -> None:
    pytest.importorskip("ray", reason="needs Ray")
    began = time.monotonic()
    with pytest.raises(UsageError, match="No cluster answers at"), connection.connect(address):
        pass
    assert time.monotonic() - began < 20


def test_cluster_error_does_not_wait_for_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, answers = threading.Event(), list[bool]()

    def slow(*_: object, **__: object) -> None:
        answers.append(ends.wait(60))
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.1)
    with pytest.raises(UsageError, match="No cluster answers at"), connection.connect("slow.example:6379"):
        pass
    assert not answers
    ends.set()


@pytest.mark.parametrize("address", ["here", "ray://10.0.0.5:10001", "10.0.0.5:head", ":6379"])
def test_cluster_address_is_host_and_port(address: str) -> None:
    with pytest.raises(UsageError, match='"--cluster" cannot be'), connection.connect(address):
        pass


def test_missing_ray_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r'-m pip install "ray>=2\.52"'):
        connection.load_ray()


def test_ray_without_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray")
    monkeypatch.setattr(ray, "__version__", "2.40.1")
    with pytest.raises(DependencyError, match=r"Ray 2\.40\.1 has no token authentication"):
        connection.load_ray()


@pytest.mark.slow
def test_cluster_with_another_ray_is_one_sentence(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "__version__", "2.59.9")
    with (
        pytest.raises(DependencyError, match=r"has another version of Ray or Python.*Ray: 2\.59\.9"),
        connection.connect(cluster.address),
    ):
        pass


def test_node_tells_what_it_does_not_see(tmp_path: Path) -> None:
    file, probe, other = tmp_path / "a.mp4", temp_path(tmp_path / "probe.txt"), tmp_path / "none" / "probe.txt"
    file.write_bytes(b"video")
    probe.write_text("token", encoding="utf-8")
    _, found = problems({file: 5}, {probe: "token"})
    assert found == []
    _, found = problems({file: 6, tmp_path / "b.mp4": 1}, {probe: "other", other: "token"})
    assert found == [
        f"cannot write to the shared folder {tmp_path}",
        f"cannot write to the shared folder {tmp_path / 'none'}",
        f"does not see the file {file}",
        f"does not see the file {tmp_path / 'b.mp4'}",
    ]
    assert sorted(tmp_path.iterdir()) == sorted([file, probe])
