"""A prompt cannot read or write files outside ComfyUI's folders, and cannot run code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.comfyui import ComfyUI, ExecutionFailedError, InvalidPromptError
from scripts.comfyui_events import ComfyUIError
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.broken_media import transport
from tests.support.broken_weights import Runs
from tests.support.comfyui_server import SOURCE_FRAMES
from tests.support.scene import Scene

SECRET = "the secret of this machine"
NAN, INF = float("nan"), float("inf")

FIRST, SECOND, THIRD, LAST = (
    "LatentSyncLoadModel",
    "LatentSyncFacePrep",
    "LatentSyncAudioEmbed",
    "LatentSyncVideoCombine",
)
SAMPLER = "LatentSyncSampler"

VALUES = [
    (SAMPLER, {"steps": -1}),
    (SAMPLER, {"steps": 10**30}),
    (SAMPLER, {"steps": "many"}),
    (SAMPLER, {"steps": NAN}),
    (SAMPLER, {"cfg": NAN}),
    (SAMPLER, {"cfg": INF}),
    (SAMPLER, {"cfg_start_percent": NAN}),
    (SAMPLER, {"seed": 2**64}),
    (SAMPLER, {"seed": -1}),
    (SAMPLER, {"overlap": 16}),
    (SAMPLER, {"sampler_name": "__import__('os').system('true')"}),
    (SAMPLER, {"deepcache_interval": 99}),
    (SAMPLER, {"output_fps": "1e9"}),
    (SAMPLER, {"length_mode": "../../etc"}),
    (SAMPLER, {"model": "a word"}),
    (SAMPLER, {"audio_embeds": {"states": "a word"}}),
    (SECOND, {"image_fps": -25}),
    (SECOND, {"max_yaw": NAN}),
    (SECOND, {"face_index": 10**6}),
    (SECOND, {"face_landmarks": "a word"}),
    (SECOND, {"face_landmarks": {"frames": 5, "image_size": [64, 64]}}),
    (SECOND, {"face_landmarks": {"frames": [[{"landmarks_xy": [[1e400, 0]] * 478}]], "image_size": [640, 480]}}),
    (THIRD, {"threshold_db": NAN, "silence": "keep original"}),
    (THIRD, {"offset_ms": 10**9}),
    (THIRD, {"audio": "a word"}),
    (THIRD, {"audio": {"waveform": "a word", "sample_rate": 16_000}}),
    (THIRD, {"vocals": "a word"}),
    (LAST, {"crf": 10**6}),
    (LAST, {"mask_feather": NAN}),
    (LAST, {"mask_expand": INF}),
    (LAST, {"format": "../../bin/sh"}),
    (LAST, {"paste_mode": None}),
    (LAST, {"protect_mask": "a word"}),
    (FIRST, {"version": "2.0"}),
    (FIRST, {"precision": "eval"}),
    (FIRST, {"vae": "a word"}),
]

OUTSIDE = [
    "../{name}",
    "../../{name}",
    "video/../../{name}",
    "{folder}/{name}",
    "/{folder}/{name}",
    "%year%/../../{name}",
    "a\0b",
]


@pytest.fixture
def graph(sample: Sample) -> graphs.Graph:
    """The video workflow with one step and its own output folder."""
    graph = graphs.with_landmarks(graphs.load("lipsync_video"), sample.landmarks.name)
    graph = graphs.changed(graph, SAMPLER, steps=1, cfg=1.0, length_mode="shortest")
    return graphs.changed(graph, LAST, filename_prefix="hostile/clip")


@pytest.fixture
def outside(comfyui: ComfyUI, tmp_path: Path) -> Iterator[Path]:
    """A folder outside ComfyUI with a secret in it. Nothing may be written there or beside ComfyUI's folders."""
    (tmp_path / "secret.txt").write_text(SECRET, encoding="utf-8")
    (tmp_path / "secret.json").write_text(json.dumps({"frames": [], "said": SECRET}), encoding="utf-8")
    before = {folder: everything(folder) for folder in (tmp_path, comfyui.base)}
    yield tmp_path
    assert everything(tmp_path) == before[tmp_path]
    assert shown(comfyui.base) == {path.name for path in before[comfyui.base] if path.parent == comfyui.base}
    told = json.dumps(comfyui.get("/history").json())
    assert SECRET not in told


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def shown(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refused(comfyui: ComfyUI, graph: graphs.Graph) -> str:
    """Run a graph that must be refused; returns the error."""
    with pytest.raises(ComfyUIError) as caught:
        comfyui.run(graph)
    if isinstance(caught.value, ExecutionFailedError):
        return f"at the node: {caught.value.exception_message}"
    assert isinstance(caught.value, InvalidPromptError)
    return f"before it is queued: {str(caught.value).splitlines()[-1]}"


def works(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    path = graphs.the_video(comfyui.outputs(comfyui.run(graph)))
    assert graphs.probe(path).frames == SOURCE_FRAMES


def test_prompt_values_out_of_range_are_refused(comfyui: ComfyUI, graph: graphs.Graph, outside: Path) -> None:
    for node, values in VALUES:
        said = refused(comfyui, graphs.changed(graph, node, **values))
        name = next(iter(values))
        assert name.replace("_", " ") in said.replace("_", " ").lower(), "the error names the input"
    folder = comfyui.output / "hostile"
    assert not folder.exists() or not list(folder.glob("*.mp4"))


def test_prompt_fps_nan_is_refused(comfyui: ComfyUI, sample: Sample, outside: Path) -> None:
    graph = graphs.with_landmarks(graphs.load("lipsync_images"), sample.landmarks.name)
    said = refused(comfyui, graphs.changed(graph, SECOND, image_fps=NAN))
    assert '"image_fps" cannot be nan' in said


@pytest.mark.parametrize("prefix", OUTSIDE)
def test_prompt_prefix_cannot_leave_output_folder(
    comfyui: ComfyUI, graph: graphs.Graph, outside: Path, prefix: str
) -> None:
    given = prefix.format(name="stolen", folder=outside)
    said = refused(comfyui, graphs.changed(graph, LAST, filename_prefix=given))
    assert said.startswith("before it is queued")
    assert "filename_prefix" in said


@pytest.mark.parametrize(
    "name", ["../../../{secret}", "{folder}/unet.pt", "1.5/../../{secret}", "..", "", ["a"], {"a": 1}, 5]
)
def test_prompt_model_name_cannot_leave_models_folder(
    comfyui: ComfyUI, graph: graphs.Graph, outside: Path, name: Any
) -> None:
    given = name.format(secret="secret.txt", folder=outside) if isinstance(name, str) else name
    said = refused(comfyui, graphs.changed(graph, FIRST, unet=given))
    assert "unet" in said
    assert "Exception" not in said
    assert SECRET not in said


@pytest.mark.parametrize("socket", ["source", "reference_face", "face_landmarks"])
def test_prompt_path_in_a_socket_reads_nothing(
    comfyui: ComfyUI, graph: graphs.Graph, outside: Path, socket: str
) -> None:
    """A value in place of a connection: ComfyUI passes it to the node unchanged."""
    said = refused(comfyui, graphs.changed(graph, SECOND, **{socket: str(outside / "secret.json")}))
    assert f'at the node: "{socket}" has a value of the wrong type' in said
    assert SECRET not in said


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_prompt_playlist_reads_no_other_file(
    comfyui: ComfyUI, sample: Sample, graph: graphs.Graph, outside: Path, kind: str
) -> None:
    """FFmpeg reads both kinds as videos, and they name other files."""
    folder = outside.parent / f"{outside.name}-private"
    folder.mkdir()
    private = transport(Scene(folder, sample, folder))
    texts = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{private}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{os.path.relpath(private, comfyui.input)}'\n",
    }
    listing = comfyui.input / f"clip.{kind}"
    listing.write_text(texts[kind], encoding="utf-8")
    changed = graphs.changed(graph, "LoadVideo", file=listing.name)
    del changed[graphs.node(changed, SECOND)]["inputs"]["face_landmarks"]
    said = refused(comfyui, changed)
    listing.unlink()
    assert f"clip.{kind} cannot be opened as a video" in said


def test_prompt_checkpoint_cannot_run_code(comfyui: ComfyUI, graph: graphs.Graph, outside: Path) -> None:
    proof = comfyui.base / "code-was-run"
    path = comfyui.models / "latentsync" / "evil.pt"
    torch.save({"conv_in.weight": torch.zeros(1), "x": Runs(proof)}, path)
    said = refused(comfyui, graphs.changed(graph, FIRST, unet=path.name, version="1.5"))
    path.unlink()
    assert "LatentSync ran no code from this file" in said
    assert not proof.exists()


def test_prompt_text_is_never_run_as_code(comfyui: ComfyUI, sample: Sample, graph: graphs.Graph, outside: Path) -> None:
    proof = outside.parent / f"{outside.name}-proof"
    code = f"__import__('os').mkdir({str(proof)!r})"
    inputs = {"consent": f"$({code}) {{{{{code}}}}} %n", "filename_prefix": "hostile/$(id) `id` ${HOME}"}
    path = graphs.the_video(comfyui.outputs(comfyui.run(graphs.changed(graph, LAST, **inputs))))
    assert path.parent == comfyui.output / "hostile"
    assert path.name.startswith("$(id) `id` ${HOME}_")
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert record["consent"] == inputs["consent"]
    path.unlink()
    path.with_suffix(".json").unlink()
    stored = json.loads(sample.landmarks.read_text(encoding="utf-8"))
    stored["frames"][0][0]["score"] = code
    (comfyui.input / "evil.json").write_text(json.dumps(stored), encoding="utf-8")
    refused(comfyui, graphs.with_landmarks(graph, "evil.json"))
    (comfyui.input / "evil.json").unlink()
    assert not proof.exists()


def test_prompt_valid_graph_still_runs(comfyui: ComfyUI, graph: graphs.Graph) -> None:
    works(comfyui, graphs.changed(graph, SAMPLER, seed=4321))
