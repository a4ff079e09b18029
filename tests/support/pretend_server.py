"""A real ComfyUI server on the pretend device, and runs of all nodes that are stopped in it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from latentsync.weights.catalog import CLIPSEG, FACE_LANDMARKER
from scripts.comfyui import PACK, ComfyUI, ExecutionFailedError, ExecutionInterruptedError
from scripts.sample_clip import make_sample
from tests.support import graphs
from tests.support.paths import REPOSITORY, SHARED
from tests.support.pretend_device import ELSEWHERE
from tests.support.synthetic_models import write_models, write_syncnet
from tests.support.tiny_clipseg import write_tiny_clipseg

RESOLUTION = 64  # of the model, in pixels
SECONDS = 0.4  # of audio: 10 frames, in one window
MAX_DIFFERENCE = 1.5 / 255  # of latents and images, after smaller batches: they sum in another order
SETTLE_SECONDS = 120.0  # the server frees memory just after it has told the end of a prompt
ENDS = {"oom": ("smaller batches", "out of memory"), "cancel": ("cancelled",)}
"""How a run may end: it continues with smaller batches, it raises the error for the user, or it is cancelled."""


class PretendServer(ComfyUI):
    """ComfyUI that finds the pretend device."""

    def __init__(self, base: Path) -> None:
        packs = {
            PACK: REPOSITORY,
            "latentsync-demo-nodes": REPOSITORY / "scripts" / "demo_nodes",
            "latentsync-pretend-nodes": REPOSITORY / "tests" / "support" / "pretend_nodes",
        }
        arguments = ["--fp32-vae", "--disable-pinned-memory", "--use-pytorch-cross-attention"]
        super().__init__(base, packs=packs, arguments=arguments)

    def command(self) -> list[str]:
        return [option for option in super().command() if option != "--cpu"]

    def stop_next_run(self, oom: int = 0, cancel: int = 0, *, records: bool = False) -> None:
        """Let an allocation fail, or cancel at a check. Numbers are from 1. 0 is never."""
        asked = {"oom": oom, "cancel": cancel, "records": records}
        requests.post(f"{self.url}/pretend/stop", json=asked, timeout=60).raise_for_status()

    def state(self) -> dict[str, Any]:
        return self.get("/pretend/state").json()

    def settled(self, key: str, *, frees: bool = False) -> int:
        """A number of bytes of the state, when it is 0, or after a while."""
        if frees:
            self.free()
        deadline = time.monotonic() + SETTLE_SECONDS
        while (left := self.state()[key]) and time.monotonic() < deadline:
            time.sleep(1)
        return left

    def compared(self, graph: graphs.Graph) -> list[float]:
        """Run a graph. Returns how far latents, images and the score are from those of the first run."""
        outputs = self.wait(self.queue(graph, preview_method="auto"))["outputs"]
        return json.loads(outputs[graphs.node(graph, "LatentSyncTestCompare")]["text"][0])


def prepare(base: Path) -> None:
    """Models and a sample clip, in a base directory of ComfyUI."""
    write_models(base / "models", resolution=RESOLUTION)
    write_syncnet(base / "models")
    write_tiny_clipseg(base / "models" / CLIPSEG.path)
    shutil.copyfile(SHARED / "models" / "face_landmarker.task", base / "models" / FACE_LANDMARKER.path)
    make_sample(base / "input", SECONDS)


def every_node(seed: int) -> graphs.Graph:
    """A graph with all nodes of the pack."""
    made = graphs.with_landmarks(graphs.quick("lipsync_video"), "latentsync_sample.json")
    made = graphs.changed(made, "LatentSyncLoadModel", precision="fp32")
    made = graphs.changed(made, "LatentSyncFacePrep", occlusion="fine")
    made = graphs.changed(made, "LatentSyncSampler", seed=seed)
    made = graphs.changed(made, "LatentSyncVideoCombine", format="mkv ffv1 lossless", save_record=False)
    lips, video = graphs.node(made, "LatentSyncSampler"), graphs.node(made, "LatentSyncVideoCombine")
    images = graphs.saved("lipsync_images")
    to_images = images[graphs.node(images, "LatentSyncToImages")]["inputs"]
    audio = graphs.node(made, "LoadAudio")
    score = {"face": "largest", "face_index": 1, "download_missing": False}
    added = {
        "out": ("LatentSyncCropsOut", {"lips": [lips, 0]}),
        "in": ("LatentSyncCropsIn", {"lips": [lips, 0], "crops": ["out", 0]}),
        "images": ("LatentSyncToImages", to_images | {"lips.lips_1": ["in", 0]}),
        "score": ("LatentSyncScore", score | {"video": [video, 0], "audio": [audio, 0]}),
        "compare": (
            "LatentSyncTestCompare",
            {"seed": seed, "lips": [lips, 0], "images": ["images", 0], "distance": ["score", 2]},
        ),
    }
    return made | {key: {"class_type": name, "inputs": inputs} for key, (name, inputs) in added.items()}


def spread(sites: list[str], count: int) -> list[int]:
    """Numbers of calls, from 1: one of each line of our code, and the others evenly over the run."""
    # the number of other calls, such as at the end of a run, differs from run to run
    ours = {number: site for number, site in enumerate(sites, 1) if site != ELSEWHERE}
    lines = sorted({site: number for number, site in ours.items()}.values())
    even = [list(ours)[len(ours) * number // count] for number in range(count)]
    chosen = lines[:: -(-len(lines) // count)]
    return sorted([*chosen, *even[: count - len(chosen)]])


def stopped_runs(server: PretendServer, kind: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """Stop runs at allocations or checks, which are spread over a run of all nodes.

    Args:
        kind: a key of `ENDS`. "oom" lets an allocation fail. "cancel" cancels at a check.

    Yields how each run ended and where, and what went wrong.
    """
    graph, other = every_node(1), every_node(2)
    server.settled("used_bytes", frees=True)
    server.stop_next_run(records=True)
    server.compared(graph)
    sites: list[str] = server.state()[f"{kind}_sites"]
    threads = server.state()["threads"]
    for number in spread(sites, count):
        left = server.settled("used_bytes", frees=True)
        faults = [f"{left} bytes stay after unloading"] if left else []
        server.stop_next_run(number if kind == "oom" else 0, number if kind == "cancel" else 0)
        end, node, difference = _end(server, graph)
        server.stop_next_run()
        if end not in ENDS[kind]:
            faults.append(f"ends with: {end}")
        if max(difference[:2]) > MAX_DIFFERENCE:
            faults.append(f"smaller batches differ by {difference}")
        if left := server.settled("left_bytes"):
            faults.append(f"{left} bytes stay after the run")
        if (more := server.state()["threads"] - threads) > 0:
            faults.append(f"{more} threads stay")
        # the same prompt runs the nodes that did not end. After smaller batches, all have ended
        is_smaller = end == "smaller batches"
        next_difference = server.compared(other if is_smaller else graph)
        if max(next_difference[:2]) > MAX_DIFFERENCE if is_smaller else any(next_difference):
            faults.append(f"the next prompt differs by {next_difference}")
        yield f"{end}, {node} at {sites[number - 1]}", [f"{kind} {number} of {len(sites)}: {fault}" for fault in faults]
    server.settled("used_bytes", frees=True)
    if max(differences := server.compared(graph)):
        yield "the last run", [f"the last run differs by {differences}"]


def _end(server: PretendServer, graph: graphs.Graph) -> tuple[str, str, list[float]]:
    """How a run ends, in which node, and how far its result is from the first one."""
    try:
        difference = server.compared(graph)
    except ExecutionInterruptedError as error:
        node = str(error).rpartition(" ")[2].rstrip(".")
        return "cancelled", graph.get(node, {}).get("class_type", node), [0]
    except ExecutionFailedError as error:
        is_told = error.exception_message.startswith("Out of memory") and "Close other programs" in str(error)
        return "out of memory" if is_told else str(error), error.node_type, [0]
    return "smaller batches" if server.state()["failed_at"] else "nothing happened", "a node", difference
