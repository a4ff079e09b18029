"""Our API graphs through Comfy API v2: its client (comfy-sdk), and its proxy in front of a real ComfyUI."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from comfy_sdk import Comfy, JobFailed

from latentsync.video.video_file import VideoFile
from scripts.comfyui import ComfyUI, free_port
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import OUTPUT_FRAMES

START_SECONDS = 60


@pytest.fixture(scope="module")
def proxy(comfyui: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the proxy."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    program = Path(sys.executable).with_name("comfy-api-proxy")
    log = tmp_path_factory.mktemp("proxy") / "proxy.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program, "run", "--comfyui", comfyui.url, "--port", str(port)], stdout=file, stderr=file
        )
    try:
        wait_for_answer(f"{url}/api/v2/health", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(url, timeout=START_SECONDS).raise_for_status()
            return
        except requests.ConnectionError:
            time.sleep(0.2)
    raise AssertionError(f"The proxy does not answer. {log.read_text()}")


@pytest.fixture
def client(proxy: str, monkeypatch: pytest.MonkeyPatch) -> Comfy:
    """A client without a key: the proxy asks for none."""
    monkeypatch.setenv("COMFY_BASE_URL", proxy)
    monkeypatch.delenv("COMFY_API_KEY", raising=False)
    return Comfy()


def test_comfy_api_runs_our_graph(client: Comfy, sample: Sample, tmp_path: Path) -> None:
    """The graph of the archive, with files that the client uploads, other steps and stored landmarks."""
    graph = graphs.with_landmarks(graphs.saved("lipsync_video"), sample.landmarks.name)
    workflow = client.workflows.from_json(graph)
    workflow.set_input(graphs.node(graph, "LoadVideo"), "file", client.assets.from_file(str(sample.video)))
    workflow.set_input(graphs.node(graph, "LoadAudio"), "audio", client.assets.from_file(str(sample.audio)))
    workflow.set_input(graphs.node(graph, "LatentSyncSampler"), "steps", 1)
    job = client.run(workflow)
    (video,) = job.get_outputs(graphs.node(graph, "LatentSyncVideoCombine"))
    video.to_file(tmp_path / "out.mp4")
    assert VideoFile(tmp_path / "out.mp4").frame_count == OUTPUT_FRAMES


def test_comfy_api_reports_our_error(client: Comfy, sample: Sample) -> None:
    graph = graphs.with_landmarks(graphs.quick("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, "LatentSyncFacePrep", face_index=7)
    with pytest.raises(JobFailed) as caught:
        client.run(client.workflows.from_json(graph))
    assert caught.value.error is not None
    assert "face_index" in str(caught.value.error.message)
    assert caught.value.error.node_id == graphs.node(graph, "LatentSyncFacePrep")
