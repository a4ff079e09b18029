"""Load Model in a real ComfyUI: files, precision and a connected VAE."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

from latentsync.weights.catalog import MODELS
from scripts.comfyui import ComfyUI, ExecutionFailedError, InvalidPromptError, environment
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.comfyui_server import RESOLUTION
from tests.support.model_files import full_size_vae, loading, put_aside, said


@pytest.mark.parametrize("path", sorted(graphs.WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_load_model_templates_link_official_files(path: Path) -> None:
    """The node's `models` property names the UNet of every version."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    (node,) = [node for node in saved["nodes"] if node["type"] == "LatentSyncLoadModel"]
    offered = {model["name"]: model for model in node["properties"]["models"]}
    for model in MODELS.values():
        offer = offered[model.unet.path.removeprefix("latentsync/")]
        assert (offer["url"], offer["directory"]) == (model.unet.url, "latentsync")
        assert (offer["hash"], offer["hash_type"]) == (model.unet.sha256, "SHA256")


def test_load_model_takes_converted_file_for_official_name(comfyui: ComfyUI, sample: Sample) -> None:
    assert sample
    name = "1.5/latentsync_unet.pt"
    assert not (comfyui.models / "latentsync" / name).exists()
    assert f"LoadedModel(1.5, {RESOLUTION} px" in said(comfyui, loading("published name", unet=name))


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"unet": "1.6/latentsync_unet.pt"}, "huggingface.co/ByteDance/LatentSync-1.6"),
        ({"unet": "1.6/latentsync_unet.pt", "version": "1.5"}, 'is version 1.6, but "version" is 1.5'),
        ({"unet": "1.5/latentsync_unet.safetensors", "version": "1.6"}, "has the weights of version 1.5, not of 1.6"),
    ],
    ids=["not there", "another version's name", "another version's weights"],
)
def test_load_model_refuses_wrong_version(comfyui: ComfyUI, inputs: dict[str, str], sentence: str) -> None:
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(loading("wrong version", **inputs))
    assert sentence in caught.value.exception_message


def test_load_model_refuses_missing_file_before_run(comfyui: ComfyUI) -> None:
    with pytest.raises(InvalidPromptError, match=r'"unet" is nothing.pt, but models/latentsync has no such file'):
        comfyui.queue(loading("no file", unet="nothing.pt"))


def test_load_model_refuses_vae_of_another_shape(comfyui: ComfyUI) -> None:
    graph = loading("pixel space", vae=["vae", 0])
    graph["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}}
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graph)
    assert "3 latent channels, a stride of 1" in caught.value.exception_message
    assert "4 channels, a stride of 8" in caught.value.exception_message


def test_load_model_connected_vae_replaces_file(comfyui: ComfyUI, tmp_path: Path) -> None:
    path = comfyui.models / "vae" / "wired.safetensors"
    save_file(full_size_vae(), path)
    graph = loading("wired", vae=["vae", 0])
    graph["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": path.name}}
    with put_aside(comfyui.models / "vae" / "sd-vae-ft-mse.safetensors"):
        assert "LoadedModel(1.5" in said(comfyui, graph)
        with pytest.raises(ExecutionFailedError, match=r"sd-vae-ft-mse.safetensors \(335 MB\)"):
            comfyui.run(loading("not wired"))
    path.unlink()


COMPARE = """
import sys

sys.path[:0] = sys.argv[1:3]
from comfy.cli_args import args

args.cpu = True
import comfy.ops
import torch

from latentsync.weights import loader, random_init

told = loader.Checkpoint("unet", dict(random_init.unet().state_dict()))


def noise(dtype, seed):
    unet = loader.load_unet(told, comfy.ops.manual_cast, dtype, norm_dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    x, audio = (torch.randn(shape, generator=generator) for shape in ((1, 13, 2, 8, 8), (1, 2, 50, 384)))
    with torch.no_grad():
        made, _ = unet(x, 500, unet.precompute_audio_kv(audio), do_cfg=True)
    return made, sum(w.nbytes for w in unet.state_dict().values())


(half, half_bytes), (eighth, eighth_bytes) = noise(torch.float16, 1), noise(torch.float8_e4m3fn, 1)
other, _ = noise(torch.float16, 2)
print((half - eighth).norm().item(), (half - other).norm().item(), eighth_bytes / half_bytes)
"""


def test_load_model_fp8_is_close_to_fp16(comfyui: ComfyUI) -> None:
    """Through ComfyUI's casting layers, on the CPU in float32."""
    assert f"LoadedModel(1.5, {RESOLUTION} px, torch.float32 on cpu)" in said(comfyui, loading("fp8", precision="fp8"))
    command = [sys.executable, "-c", COMPARE, str(comfyui.program), str(graphs.REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    error, distance, share = map(float, done.stdout.split()[-3:])
    # e4m3 keeps 3 bits of each weight: 0.12 of what another input changes, measured through all layers
    assert 0 < error < 0.2 * distance
    assert share < 0.56, "matrices in half of fp16's bytes; norms and biases stay whole"
