"""A batch writes into the output folder of a running ComfyUI, under the names that Video Combine takes."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path

import pytest

from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.batch_jobs import job_file, started
from tests.support.cli_process import read_until

JOBS, PROMPTS = 4, 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process and continue it")
def test_batch_and_comfyui_never_share_a_name(comfyui: ComfyUI, sample: Sample, tmp_path: Path) -> None:
    """The batch is stopped inside its first job while the first prompt takes the name of the second job."""
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncVideoCombine", filename_prefix="mixed/lips")
    prompts = [graphs.changed(graph, "LatentSyncSampler", seed=seed, steps=1) for seed in range(PROMPTS)]
    out = comfyui.output / "mixed"
    wanted = [out / f"lips_{number:05}_.mp4" for number in range(1, JOBS + 1)]
    jobs = job_file(tmp_path / "jobs.jsonl", sample, JOBS)
    lines = [json.loads(line) for line in jobs.read_text(encoding="utf-8").splitlines()]
    jobs.write_text("\n".join(json.dumps(line | {"output": p.name}) for line, p in zip(lines, wanted, strict=True)))
    batch = started(jobs, out)
    assert batch.stdout is not None
    said = read_until(batch.stdout, b": running")
    batch.send_signal(signal.SIGSTOP)
    try:
        made = [graphs.the_video(comfyui.outputs(comfyui.run(prompts[0])))]
    finally:
        batch.send_signal(signal.SIGCONT)
    queued = [comfyui.queue(prompt) for prompt in prompts[1:]]
    made += [graphs.the_video(comfyui.outputs(comfyui.wait(prompt_id))) for prompt_id in queued]
    said += batch.stdout.read()
    assert batch.wait() == 1
    report = json.loads((out / "batch.json").read_bytes())["jobs"]
    done = [Path(job["output"]) for job in report if job["state"] == "done"]
    failed = {Path(job["output"]): job["reason"] for job in report if job["state"] == "failed"}
    assert made[0] == wanted[1]
    assert len({*made, *done}) == PROMPTS + len(done), "no name is used twice"
    assert set(failed) == {*made} & {*wanted}
    assert all("Another run made" in reason for reason in failed.values()), failed
    assert {path for path in out.iterdir() if path.suffix == ".mp4"} == {*made, *done}, "nothing half-made is left"
    for path in [*made, *done]:
        record = json.loads(path.with_suffix(".json").read_bytes())
        assert record["outcome"] == "done"
        assert record["output"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert sum(1 for _ in VideoFile(path).read(range(record["frames"]["total"]))) == record["frames"]["total"]
