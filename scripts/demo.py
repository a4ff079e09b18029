"""Lip-sync a sample clip in a real ComfyUI and print the path of the video, or keep that ComfyUI open for the browser.

Usage: python -m scripts.demo [--weights 1.5|1.6] [--keep-serving]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentsync.errors import LatentSyncError, WeightsError
from latentsync.weights import locate, miniature
from latentsync.weights.catalog import FACE_LANDMARKER
from scripts.comfyui import PACK, REPOSITORY, ComfyUI, Graph
from scripts.comfyui_events import ComfyUIError, Event
from scripts.sample_clip import Sample, make_sample
from scripts.workflow import to_api

WORKFLOW = REPOSITORY / "workflows" / "lipsync_video.json"
DEMO_PACK = "latentsync-demo-nodes"
PACKS = {PACK: REPOSITORY, DEMO_PACK: REPOSITORY / "scripts" / "demo_nodes"}

REAL_BASE = REPOSITORY / ".comfyui" / "demo"
MINIATURE_BASE = REPOSITORY / ".comfyui" / "demo-miniature"
"""A separate base directory, so that the miniature model never hides real weights."""

STEPS_WIDGET = 2
"""Index after the seed and "control after generate"."""

SERVE_PORT = 8188
TIMEOUT_SECONDS = 6 * 3600.0

Workflow = dict[str, Any]


def demo(weights: str | None) -> Path:
    """Run the shipped workflow on the sample and return the finished video."""
    base = prepare_weights(weights)
    workflow = prepare_workflow(base, make_sample(base / "input"), weights)
    print("Starting ComfyUI ...", flush=True)
    with ComfyUI(base, packs=PACKS) as comfyui:
        graph = to_api(workflow, comfyui.object_info())
        prompt_id = comfyui.queue(graph)
        for line in progress_lines(comfyui.events.follow(TIMEOUT_SECONDS), prompt_id, graph):
            print(line, flush=True)
        videos = [path for path in comfyui.outputs(comfyui.wait(prompt_id)) if path.suffix == ".mp4"]
    if not videos:
        raise ComfyUIError(f"The workflow wrote no MP4. See {comfyui.log_path}.")
    return videos[-1]


def serve(weights: str | None) -> None:
    """Keep a ComfyUI with the sample and the workflow open for the browser, until Ctrl-C."""
    base = prepare_weights(weights)
    workflow = prepare_workflow(base, make_sample(base / "input"), weights)
    saved = base / "user" / "default" / "workflows" / WORKFLOW.name
    saved.parent.mkdir(parents=True, exist_ok=True)
    saved.write_text(json.dumps(workflow, indent=2), encoding="utf-8")
    with ComfyUI(base, packs=PACKS, port=SERVE_PORT) as comfyui:
        print(f"Open {comfyui.url}. The workflow {saved.stem} is in the sidebar. Press Ctrl-C to stop.", flush=True)
        with suppress(KeyboardInterrupt):
            comfyui.wait_closed()


def prepare_weights(version: str | None) -> Path:
    """The base directory with real weights, or else one with the miniature model. Prints the reason.

    version: download these real weights first, and use no others.
    """
    models = REAL_BASE / "models"
    if version is not None:
        command = [sys.executable, "-m", "latentsync", "download", version, "--models", str(models)]
        subprocess.run(command, cwd=REPOSITORY, check=True)
    try:
        locate.locate(locate.folders_in(models), version)
        return REAL_BASE
    except WeightsError as error:
        if version is not None:
            raise
        miniature.write_models(MINIATURE_BASE / "models")
        place_landmarker(MINIATURE_BASE / "models")
        print(
            "The demo uses a small model that was trained on its face, not ByteDance's model. "
            f"For the real model, run: make demo WEIGHTS=1.5 (5.5 GB) or WEIGHTS=1.6.\n{error}"
        )
        return MINIATURE_BASE


def place_landmarker(models: Path) -> None:
    """Link MediaPipe's model into a models folder, if the checkout has it."""
    own, link = REPOSITORY / "models" / FACE_LANDMARKER.path, models / FACE_LANDMARKER.path
    if own.is_file() and not link.is_file():
        link.unlink(missing_ok=True)
        link.symlink_to(own.resolve())


def prepare_workflow(base: Path, sample: Sample, version: str | None) -> Workflow:
    """The shipped workflow with the files of the sample, and stored landmarks if MediaPipe's model is missing."""
    workflow: Workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    fill_in(workflow, sample, version)
    model = base / "models" / FACE_LANDMARKER.path
    if not model.is_file():
        print(f"MediaPipe's model ({model}) is missing. The demo uses the stored face landmarks of the sample.")
        add_landmarks(workflow, sample.landmarks.name)
    return workflow


def fill_in(workflow: Workflow, sample: Sample, version: str | None, steps: int | None = None) -> None:
    """Set the files of the sample, a model version (None: auto) and steps (None: as saved)."""
    set_first_widget(workflow, "LoadVideo", sample.video.name)
    set_first_widget(workflow, "LoadAudio", sample.audio.name)
    version_widget, _, _, unet_widget = range(4)
    values = node_of(workflow, "LatentSyncLoadModel")["widgets_values"]
    values[version_widget], values[unet_widget] = version or "auto", "auto"
    if steps is not None:
        node_of(workflow, "LatentSyncSampler")["widgets_values"][STEPS_WIDGET] = steps


def set_first_widget(workflow: Workflow, node_type: str, value: str) -> None:
    node_of(workflow, node_type)["widgets_values"][0] = value


def add_landmarks(workflow: Workflow, file_name: str) -> None:
    """Put a LatentSyncDemoLandmarks node before Face Prep's `face_landmarks` input."""
    face_prep = node_of(workflow, "LatentSyncFacePrep")
    slot = next(index for index, entry in enumerate(face_prep["inputs"]) if entry["name"] == "face_landmarks")
    node_id = max(node["id"] for node in workflow["nodes"]) + 1
    link_id = max(link[0] for link in workflow["links"]) + 1
    face_prep["inputs"][slot]["link"] = link_id
    workflow["nodes"].append(landmarks_node(node_id, link_id, file_name, face_prep["pos"]))
    workflow["links"].append([link_id, node_id, 0, face_prep["id"], slot, "FACE_LANDMARKS"])
    workflow.update(last_node_id=node_id, last_link_id=link_id)


def landmarks_node(node_id: int, link_id: int, file_name: str, beside: list[float]) -> dict[str, Any]:
    """The node as the browser saves it, above the node at `beside`."""
    return {
        "id": node_id,
        "type": "LatentSyncDemoLandmarks",
        "pos": [beside[0], beside[1] - 140],
        "size": [300, 60],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": "file", "type": "COMBO", "widget": {"name": "file"}, "link": None}],
        "outputs": [{"name": "landmarks", "type": "FACE_LANDMARKS", "links": [link_id]}],
        "properties": {"Node name for S&R": "LatentSyncDemoLandmarks"},
        "widgets_values": [file_name],
    }


def node_of(workflow: Workflow, node_type: str) -> dict[str, Any]:
    return next(node for node in workflow["nodes"] if node["type"] == node_type)


def progress_lines(events: Iterator[Event], prompt_id: str, graph: Graph) -> Iterator[str]:
    """A line for each node that starts and for each tenth of its progress, until the prompt ends."""
    shown: set[tuple[str, int]] = set()
    for event in events:
        if event.prompt_id != prompt_id:
            continue
        if event.type.startswith("execution_") and event.type not in ("execution_start", "execution_cached"):
            return
        running = event.data.get("nodes", {}) if event.type == "progress_state" else {}
        for node_id, state in running.items():
            tenth = int(10 * state["value"] / state["max"])
            if state["state"] == "running" and (node_id, tenth) not in shown:
                shown.add((node_id, tenth))
                yield f"  {graph[node_id]['_meta']['title']} {10 * tenth} %"


def main() -> int:
    parser = argparse.ArgumentParser(description="Lip-sync a sample clip in a real ComfyUI.")
    parser.add_argument(
        "--weights", metavar="VERSION", help="download the real weights of this version first: 1.5 or 1.6"
    )
    parser.add_argument("--keep-serving", action="store_true", help="open ComfyUI for the browser instead")
    arguments = parser.parse_args()
    try:
        if arguments.keep_serving:
            serve(arguments.weights)
        else:
            print(demo(arguments.weights))
    except (ComfyUIError, LatentSyncError, subprocess.CalledProcessError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
