"""api/client.py against a real ComfyUI: upload, queue, progress, result and errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES, WINDOWS
from tests.support.file_server import serving

CLIENT = graphs.API_WORKFLOWS / "client.py"
TWO_VOICES = graphs.API_WORKFLOWS / "lipsync_two_speakers.json"


@pytest.fixture
def graph(sample: Sample, tmp_path: Path) -> Path:
    """The graph of the client, with one step and stored landmarks."""
    quick = graphs.changed(graphs.load("lipsync_video"), "LatentSyncSampler", steps=1)
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graphs.with_landmarks(quick, sample.landmarks.name)), encoding="utf-8")
    return path


def client(comfyui: ComfyUI, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the client as a user does, without this repository on the Python path."""
    command = [sys.executable, "-P", CLIENT, "--server", comfyui.url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def inputs_of(comfyui: ComfyUI, class_type: str) -> Mapping[str, object]:
    """The inputs of the node of a class in the newest prompt."""
    newest = list(comfyui.get("/history").json().values())[-1]
    return next(node["inputs"] for node in newest["prompt"][2].values() if node["class_type"] == class_type)


def test_client_uploads_runs_and_downloads(comfyui: ComfyUI, sample: Sample, graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    fields = ["--seed", "7", "--guidance_scale", "2", "--inference_steps", "2", "--loop_mode", "loop"]
    done = client(comfyui, sample.video, sample.audio, "-o", out, "--graph", graph, *fields)
    assert done.returncode == 0, done.stderr
    assert VideoFile(out).frame_count == OUTPUT_FRAMES
    assert f"LatentSyncSampler: {2 * WINDOWS} of {2 * WINDOWS}" in done.stderr
    sampler = inputs_of(comfyui, "LatentSyncSampler")
    assert (sampler["seed"], sampler["cfg"], sampler["steps"], sampler["length_mode"]) == (7, 2.0, 2, "audio (loop)")
    assert json.loads(done.stdout)["request"]["seed"] == 7
    assert not list(tmp_path.glob("*.part"))


def test_client_runs_a_hosted_route_request(comfyui: ComfyUI, sample: Sample, graph: Path, tmp_path: Path) -> None:
    """The request file has the fields of a hosted route, with URLs for the files. Its seed 0 means a random one."""
    out = tmp_path / "out.mp4"
    with serving() as served:
        served.files |= {f"/{path.name}": path.read_bytes() for path in (sample.video, sample.audio)}
        places = {"video_url": f"{served.url}/{sample.video.name}", "audio_url": f"{served.url}/{sample.audio.name}"}
        request = tmp_path / "request.json"
        request.write_text(json.dumps({**places, "seed": 0, "loop_mode": "pingpong"}), encoding="utf-8")
        done = client(comfyui, "--request", request, "-o", out, "--graph", graph)
    assert done.returncode == 0, done.stderr
    assert VideoFile(out).frame_count == OUTPUT_FRAMES
    sampler = inputs_of(comfyui, "LatentSyncSampler")
    assert json.loads(done.stdout)["request"]["seed"] == sampler["seed"] > 0, "the client tells the seed that it drew"
    assert sampler["steps"] == 1, "of the graph"


def test_client_reports_errors_in_one_sentence(comfyui: ComfyUI, sample: Sample, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"video": "a.mp4", "audio": "a.wav", "lipsync_strength": 2}), encoding="utf-8")
    without = graphs.load("lipsync_video")
    del without[graphs.node(without, "LatentSyncVideoCombine")]["inputs"]["lips.lips_1"]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(without), encoding="utf-8")
    said = {
        "no video": client(comfyui, "no.mp4", sample.audio, "-o", tmp_path / "out.mp4"),
        "unknown field": client(comfyui, "--request", request, "-o", tmp_path / "out.mp4"),
        "no guidance": client(comfyui, sample.video, sample.audio, "-o", tmp_path / "out.mp4", "--guidance_scale=-1"),
        "no steps": client(comfyui, sample.video, sample.audio, "-o", tmp_path / "out.mp4", "--inference_steps=0"),
        "no video stream": client(comfyui, sample.audio, sample.audio, "-o", tmp_path / "out.mp4"),
        "two voices": client(comfyui, sample.video, sample.audio, "-o", "out.mp4", "--graph", TWO_VOICES),
        "no sampler": client(comfyui, sample.video, sample.audio, "-o", "out.mp4", "--graph", broken),
        "nobody there": client(comfyui, sample.video, sample.audio, "-o", "out.mp4", "--server", "http://127.0.0.1:9"),
    }
    assert {name: done.returncode for name, done in said.items()} == dict.fromkeys(said, 1)
    assert [done.stderr for done in said.values() if "error: " not in done.stderr or "Traceback" in done.stderr] == []
    assert "no.mp4 does not exist." in said["no video"].stderr
    assert (
        "Use only the fields video, audio, guidance_scale, inference_steps, seed, loop_mode"
        in said["unknown field"].stderr
    )
    assert "The graph has 2 nodes LoadAudio" in said["two voices"].stderr
    assert "cfg" in said["no guidance"].stderr
    assert "steps" in said["no steps"].stderr
    assert "Required input is missing: lips_1" in said["no sampler"].stderr, "Face Prep alone is not run"
    assert "127.0.0.1:9" in said["nobody there"].stderr


def test_client_ctrl_c_cancels_the_prompt(comfyui: ComfyUI, sample: Sample, tmp_path: Path) -> None:
    long = graphs.changed(graphs.load("lipsync_video"), "LatentSyncSampler", steps=100, deepcache_interval=1)
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(graphs.with_landmarks(long, sample.landmarks.name)), encoding="utf-8")
    command = [sys.executable, "-P", CLIENT, "--server", comfyui.url, sample.video, sample.audio]
    running = subprocess.Popen([*command, "-o", tmp_path / "out.mp4", "--graph", graph], stderr=subprocess.PIPE)
    assert running.stderr is not None
    next(line for line in running.stderr if line.startswith(b"LatentSyncSampler"))
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == 1
    deadline = time.monotonic() + 60
    while comfyui.get("/queue").json()["queue_running"] and time.monotonic() < deadline:
        pass
    newest = list(comfyui.get("/history").json().values())[-1]
    assert newest["status"]["messages"][-1][0] == "execution_interrupted"
    assert not list(tmp_path.glob("out*"))
