"""The example workflows in API format, changes to them, and helpers to read their results."""

from __future__ import annotations

import copy
import json
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from scripts.comfyui import ComfyUI
from scripts.workflow import to_api
from tests.support import procedural
from tests.support.paths import REPOSITORY
from tests.support.wav import make_wav

WORKFLOWS = REPOSITORY / "workflows"
API_WORKFLOWS = REPOSITORY / "api"

Graph = dict[str, dict[str, Any]]


SAMPLE_FILES = {
    "LoadVideo": {"file": "latentsync_sample.mp4"},
    "LoadAudio": {"audio": "latentsync_sample.wav"},
    "LoadImage": {"image": "example.png"},
}
"""Node class -> its input, and a file for it. The workflows leave it empty: a user chooses one."""


def saved(name: str) -> Graph:
    """An example workflow in API format, as it is shipped."""
    return json.loads((API_WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def load(name: str) -> Graph:
    """An example workflow in API format, with the files of the sample clip."""
    return with_samples(saved(name))


def turned_on(name: str, comfyui: ComfyUI) -> Graph:
    """An example workflow with its bypassed nodes turned on, in API format, with the files of the sample clip."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph["nodes"]:
        node["mode"] = 0
    return with_samples(to_api(graph, comfyui.object_info()))


def with_samples(graph: Graph) -> Graph:
    """The graph with the files of the sample clip. Changes the graph itself."""
    for node in graph.values():
        node["inputs"].update(SAMPLE_FILES.get(node["class_type"], {}))
    return graph


def quick(name: str) -> Graph:
    """An example workflow with two steps, so that DeepCache runs a full and a cached pass."""
    return changed(load(name), "LatentSyncSampler", steps=2)


def nodes(graph: Graph, class_type: str) -> list[str]:
    """The ids of the nodes of a class, in order."""
    return [key for key, value in graph.items() if value["class_type"] == class_type]


def node(graph: Graph, class_type: str) -> str:
    """The id of the one node of a class."""
    (found,) = nodes(graph, class_type)
    return found


def changed(graph: Graph, class_type: str, **inputs: Any) -> Graph:
    """A copy with other inputs at every node of a class. There must be at least one."""
    graph = copy.deepcopy(graph)
    found = nodes(graph, class_type)
    assert found
    for key in found:
        graph[key]["inputs"].update(inputs)
    return graph


def with_landmarks(graph: Graph, file: str) -> Graph:
    """A copy whose Face Prep uses stored landmarks instead of detection."""
    graph = changed(graph, "LatentSyncFacePrep", face_landmarks=["landmarks", 0])
    graph["landmarks"] = {"class_type": "LatentSyncDemoLandmarks", "inputs": {"file": file}}
    return graph


def needed(graph: Graph, class_type: str = "LatentSyncVideoCombine") -> Graph:
    """The nodes of a class, and the nodes that they depend on."""
    waiting, kept = nodes(graph, class_type), {}
    while waiting:
        key = waiting.pop()
        kept[key] = graph[key]
        waiting += [value[0] for value in graph[key]["inputs"].values() if isinstance(value, list)]
    return kept


def write_speech(path: Path, *parts: tuple[float, bool]) -> Path:
    """Write a recording of parts with speech or silence; each part is (seconds, has speech)."""
    samples = np.concatenate([procedural.speech(seconds) * speaks for seconds, speaks in parts])
    return make_wav(path, 32767 * samples[None], 16000)


def the_video(paths: list[Path], suffix: str = ".mp4") -> Path:
    """The one video among the files of a prompt. Other nodes show pictures."""
    (found,) = [path for path in paths if path.suffix == suffix]
    return found


def save(graph: Graph, folder: str, links: dict[str, list[object]], first: int, length: int) -> None:
    """Add nodes that save some images of each batch under its name."""
    for name, link in links.items():
        some = {"image": link, "batch_index": first, "length": length}
        graph[f"some {name}"] = {"class_type": "ImageFromBatch", "inputs": some}
        saved = {"images": [f"some {name}", 0], "filename_prefix": f"{folder}/{name}"}
        graph[f"save {name}"] = {"class_type": "SaveImage", "inputs": saved}


def pictures(folder: Path, name: str) -> list[np.ndarray]:
    """The images that `save` saved."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob(f"{name}_*.png"))]


class Probe(NamedTuple):
    """The properties of a finished file, found by decoding it."""

    width: int
    height: int
    rate: Fraction
    frames: int
    audio_codec: str
    audio_seconds: float
    tags: dict[str, str]


def probe(path: Path) -> Probe:
    """Decode a video file from end to end."""
    with av.open(path) as container:
        tags = dict(container.metadata)
        video, audio = container.streams.video[0], container.streams.audio[0]
        frames, samples = 0, 0
        for frame in container.decode(video, audio):
            if isinstance(frame, av.VideoFrame):
                frames += 1
            else:
                samples += frame.samples
        return Probe(
            video.width, video.height, video.average_rate, frames, audio.codec.name, samples / audio.rate, tags
        )


def wait_for_progress(graph: Graph, class_type: str, comfyui: ComfyUI, prompt_id: str) -> None:
    """Wait until a node of the prompt has made some progress."""
    running = node(graph, class_type)
    comfyui.events.wait_for(
        lambda event: (
            event.type == "progress_state"
            and event.prompt_id == prompt_id
            and 0 < event.data["nodes"].get(running, {"value": 0})["value"] < event.data["nodes"][running]["max"]
        ),
        timeout_seconds=120,
    )
