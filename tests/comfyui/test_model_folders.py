"""A ComfyUI with weights in the folders of extra_model_paths.yaml, and downloads from a local server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from latentsync.weights.catalog import HUB, VAE, WHISPER
from scripts.comfyui import ComfyUI, ExecutionFailedError
from tests.support.comfyui_server import RESOLUTION
from tests.support.file_server import Served, serving
from tests.support.model_files import full_size_vae, loading, put_aside, said
from tests.support.synthetic_models import write_models

PUBLISHED = "1.5/latentsync_unet.safetensors"
TUNED = "whisper_tuned_unet.safetensors"
OWN = "own.safetensors"

YAML = """
elsewhere:
    base_path: {folder}
    latentsync: talking heads
    vae: vae
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights, and the user's own UNets, in a latentsync folder of another name."""
    folder = tmp_path_factory.mktemp("elsewhere")
    write_models(folder, resolution=RESOLUTION)
    (folder / "latentsync").rename(folder / "talking heads")
    for name in (TUNED, OWN):
        shutil.copyfile(folder / "talking heads" / PUBLISHED, folder / "talking heads" / name)
    save_file(full_size_vae(), folder / "vae" / "wired.safetensors")
    return folder


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A mirror of the hub without files, which records its requests."""
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def comfyui(elsewhere: Path, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    base = tmp_path_factory.mktemp("base")
    paths = base / "paths.yaml"
    paths.write_text(YAML.format(folder=elsewhere), encoding="utf-8")
    server = ComfyUI(base, arguments=["--extra-model-paths-config", str(paths)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", served.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        server.start()
    try:
        yield server
    finally:
        server.stop()


def missing(comfyui: ComfyUI, seed: str, **inputs: object) -> str:
    """The error of Load Model with download_missing on and a VAE connected."""
    graph = loading(seed, download_missing=True, vae=["vae", 0], **inputs)
    graph["vae"] = {"class_type": "VAELoader", "inputs": {"vae_name": "wired.safetensors"}}
    with pytest.raises(ExecutionFailedError) as caught:
        comfyui.run(graph)
    return caught.value.exception_message


def test_model_folders_of_extra_model_paths_are_used(comfyui: ComfyUI) -> None:
    assert not [path for path in comfyui.models.rglob("*") if path.is_file()]
    assert f"LoadedModel(1.5, {RESOLUTION} px" in said(comfyui, loading("elsewhere"))


def test_model_folders_offer_every_unet_but_not_whisper(comfyui: ComfyUI) -> None:
    offered = comfyui.object_info("LatentSyncLoadModel")["LatentSyncLoadModel"]["input"]["required"]["unet"][1][
        "options"
    ]
    assert offered == ["auto", PUBLISHED, OWN, TUNED]


def test_model_folders_download_only_missing_files(
    comfyui: ComfyUI, elsewhere: Path, served: Served, shared: Path
) -> None:
    """The official UNet and the VAE are missing too, but the graph does not need them."""
    heads = elsewhere / "talking heads"
    shutil.copyfile(shared / "models" / "face_landmarker.task", heads / "face_landmarker.task")
    with (
        put_aside(heads / PUBLISHED),
        put_aside(elsewhere / VAE.path),
        put_aside(heads / WHISPER.path.partition("/")[2]),
    ):
        told = missing(comfyui, "only Whisper", unet=OWN)
        address = WHISPER.url.replace(HUB, served.url)
        assert f"could not be downloaded from {address} (the server answered 404)" in told
        assert (served.refused, served.requests) == ({address.removeprefix(served.url)}, [])
