"""Where weights are found, and the error for every wrong file.

Small files stand in for the published ones: the tables of `spec` are replaced, the code is the real one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from latentsync.errors import LatentSyncError, UsageError, WeightsError
from latentsync.progress import run
from latentsync.weights import catalog, locate, metadata
from latentsync.weights.catalog import ModelSpec, Version, WeightFile
from latentsync.weights.locate import Folders, ModelFiles
from tests.support.synthetic_models import write_models

CONTENTS: dict[str, bytes] = {
    "1.5": b"weights of 1.5" * 10,
    "1.6": b"weights of 1.6!" * 10,
    "whisper": b"the encoder",
    "vae": b"the autoencoder",
    "vae of CompVis": b"the other layout of it",
    "landmarker": b"landmarks",
}


class Published(NamedTuple):
    """The stand-ins, as the tables of `spec`."""

    models: dict[Version, ModelSpec]
    whisper: WeightFile
    vae: WeightFile
    landmarker: WeightFile


def stand_in(file: WeightFile, content: bytes) -> WeightFile:
    return dataclasses.replace(file, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    models = {
        version: dataclasses.replace(model, unet=stand_in(model.unet, CONTENTS[version]))
        for version, model in catalog.MODELS.items()
    }
    twin = stand_in(catalog.VAE_LDM, CONTENTS["vae of CompVis"])
    tables = Published(
        models=models,
        whisper=stand_in(catalog.WHISPER, CONTENTS["whisper"]),
        vae=dataclasses.replace(stand_in(catalog.VAE, CONTENTS["vae"]), equivalents=(twin,)),
        landmarker=stand_in(catalog.FACE_LANDMARKER, CONTENTS["landmarker"]),
    )
    names = ("MODELS", "WHISPER", "VAE", "FACE_LANDMARKER")
    for name, table in zip(names, tables, strict=True):
        monkeypatch.setattr(locate, name, table)
    return tables


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_safetensors(path: Path, metadata: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": torch.zeros(3)}, path, metadata)
    return path


@pytest.fixture
def models(tmp_path: Path, published: Published) -> Path:
    """A models folder with everything but the UNets."""
    put(tmp_path / published.whisper.path, CONTENTS["whisper"])
    put(tmp_path / published.vae.path, CONTENTS["vae"])
    put(tmp_path / published.landmarker.path, CONTENTS["landmarker"])
    return tmp_path


def put_unet(models: Path, version: Version, content: str | None = None) -> Path:
    return put(models / catalog.MODELS[version].unet.path, CONTENTS[content or version])


def located(models: Path, version: Version | None = None, unet: Path | None = None) -> ModelFiles:
    return locate.locate(locate.folders_in(models), version, unet)


def test_locate_finds_files_in_their_folders(models: Path) -> None:
    unet = put_unet(models, "1.5")
    files = located(models)
    assert (files.spec.version, files.unet) == ("1.5", unet)
    assert files.whisper == models / "latentsync" / "whisper" / "tiny.pt"
    assert files.vae == models / "vae" / "sd-vae-ft-mse.safetensors"


@pytest.mark.parametrize("version", ["1.5", "1.6"])
def test_locate_finds_files_of_other_packs(tmp_path: Path, published: Published, version: Version) -> None:
    """ComfyUI-LatentSyncWrapper gives both versions the same name: the size tells them apart."""
    checkpoints = tmp_path / "custom_nodes" / "ComfyUI-LatentSyncWrapper" / "checkpoints"
    unet = put(checkpoints / "latentsync_unet.pt", CONTENTS[version])
    whisper = put(checkpoints / "whisper" / "tiny.pt", CONTENTS["whisper"])
    vae = put(checkpoints / "vae" / "diffusion_pytorch_model.safetensors", CONTENTS["vae"])
    folders = dataclasses.replace(locate.folders_in(tmp_path / "models"), wrappers=(checkpoints,))
    files = locate.locate(folders)
    assert (files.spec.version, files.unet, files.whisper, files.vae) == (version, unet, whisper, vae)
    other = "1.6" if version == "1.5" else "1.5"
    with pytest.raises(WeightsError, match=r"Model files are missing \([12]\)"):
        locate.locate(folders, other)


def test_locate_skips_other_files_of_other_packs(models: Path) -> None:
    checkpoints = models / "checkpoints"
    put(checkpoints / "latentsync_unet.pt", b"a test file")
    folders = dataclasses.replace(locate.folders_in(models), wrappers=(checkpoints,))
    with pytest.raises(WeightsError, match="missing"):
        locate.locate(folders)


def test_locate_accepts_both_layouts_of_the_vae(models: Path) -> None:
    put_unet(models, "1.5")
    (models / "vae" / "sd-vae-ft-mse.safetensors").unlink()
    compvis = put(models / "vae" / "vae-ft-mse-840000-ema-pruned.safetensors", CONTENTS["vae of CompVis"])
    assert located(models).vae == compvis


def test_locate_searches_every_folder_and_prefers_safetensors(models: Path, tmp_path: Path) -> None:
    put_unet(models, "1.5")
    second = put_safetensors(tmp_path / "second" / "1.5" / "latentsync_unet.safetensors", {metadata.VERSION: "1.5"})
    folders = Folders({"latentsync": (models / "latentsync", tmp_path / "second"), "vae": (models / "vae",)})
    assert locate.locate(folders).unet == second


def test_locate_reads_no_file_of_the_official_size(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing 5 GB at load would take longer than loading them."""
    put_unet(models, "1.5")
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr(hashlib, "sha256", None)
    assert located(models).spec.version == "1.5"
    assert not list(models.rglob("*.json"))


@pytest.mark.parametrize(
    ("on_disk", "memory_bytes", "version"),
    [
        (("1.5", "1.6"), 24_000_000_000, "1.6"),
        (("1.5", "1.6"), 12_500_000_000, "1.6"),
        (("1.5", "1.6"), 8_500_000_000, "1.5"),
        (("1.5", "1.6"), 1_000_000_000, "1.5"),
        (("1.5", "1.6"), None, "1.5"),
        (("1.6",), None, "1.6"),
        (("1.5",), 24_000_000_000, "1.5"),
        ((), 24_000_000_000, "1.6"),
        ((), None, "1.5"),
    ],
)
def test_default_version_is_the_best_that_fits(
    models: Path, on_disk: tuple[Version, ...], memory_bytes: int | None, version: Version
) -> None:
    for name in on_disk:
        put_unet(models, name)
    assert locate.default_version(locate.folders_in(models), memory_bytes) == version


def test_default_version_follows_the_catalog(models: Path, published: Published) -> None:
    """A new version is one entry: nothing else names the versions in order."""
    newest = dataclasses.replace(published.models["1.6"], version="1.7", rank=3, min_vram_bytes=20_000_000_000)
    published.models["1.7"] = newest  # type: ignore[index]
    folders = locate.folders_in(models)
    assert locate.default_version(folders, 24_000_000_000) == "1.7"
    assert locate.default_version(folders, 16_000_000_000) == "1.6"


def test_identify_unet_trusts_the_size_over_the_folder(models: Path) -> None:
    put_unet(models, "1.6", content="1.5")
    assert located(models).spec.version == "1.5"


def test_missing_files_lists_all_in_one_error(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsError) as raised:
        located(tmp_path, "1.6")
    text = str(raised.value)
    assert text.startswith("Model files are missing (4):")
    for file in (published.models["1.6"].unet, published.whisper, published.vae, published.landmarker):
        path = tmp_path / file.path
        assert f"{path.name} ({file.size_bytes / 1e6:,.0f} MB) into {path.parent}\n    from {file.url}" in text
    command = f'"{sys.executable}" -m latentsync download 1.6 --models "{tmp_path}"'
    assert f"Run {command}, or put the files there yourself." in text


def test_missing_files_names_the_switch_in_comfyui(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsError, match="Switch on download_missing in Load Model, or put") as raised:
        locate.locate(dataclasses.replace(locate.folders_in(tmp_path), models=None))
    assert "python -m" not in str(raised.value)


def test_required_files_are_those_of_the_run(tmp_path: Path, published: Published) -> None:
    whisper, vae, landmarker = published.whisper, published.vae, published.landmarker
    unet, own = published.models["1.6"].unet, tmp_path / "tuned.safetensors"
    assert locate.required_files("1.6") == (unet, whisper, vae, landmarker)
    assert locate.required_files("1.6", own) == (whisper, vae, landmarker)
    assert locate.required_files("1.6", own, needs_vae=False) == (whisper, landmarker)
    assert locate.required_networks("1.6", needs_vae=False) == (unet, whisper)


def test_locate_needs_no_vae_if_one_is_connected(models: Path, published: Published) -> None:
    put_unet(models, "1.5")
    (models / published.vae.path).unlink()
    assert locate.locate(locate.folders_in(models), needs_vae=False).spec.version == "1.5"


class Wrong(NamedTuple):
    """A wrong pair: what is put on disk, the version that is asked for, and the error."""

    make: Callable[[Path], Path | None]
    version: Version | None
    message: str
    error: type[LatentSyncError] = WeightsError


def changed(models: Path, path: str, content: bytes) -> None:
    put_unet(models, "1.5")
    put(models / path, content)


UNET_15 = "latentsync/1.5/latentsync_unet.pt"
UNET_16 = "latentsync/1.6/latentsync_unet.pt"
TINY = "latentsync/whisper/tiny.pt"
SD_VAE = "vae/sd-vae-ft-mse.safetensors"

WRONG: dict[str, Wrong] = {
    "1.5 weights as 1.6": Wrong(
        lambda models: put(models / UNET_15, CONTENTS["1.5"]),
        "1.6",
        'latentsync_unet.pt has the weights of version 1.5, not of 1.6. Set "version" to 1.5 or auto',
    ),
    "1.6 weights as 1.5": Wrong(
        lambda models: put(models / UNET_16, CONTENTS["1.6"]), "1.5", "has the weights of version 1.6, not of 1.5"
    ),
    "1.5 weights in the folder of 1.6": Wrong(
        lambda models: put(models / UNET_16, CONTENTS["1.5"]) and None,
        "1.6",
        "has the weights of version 1.5, not of 1.6",
    ),
    "converted 1.5 weights as 1.6": Wrong(
        lambda models: put_safetensors(models / "mine.safetensors", {metadata.VERSION: "1.5"}),
        "1.6",
        "mine.safetensors has the weights of version 1.5, not of 1.6",
    ),
    "an unknown file without a version": Wrong(
        lambda models: put_safetensors(models / "tuned.safetensors", {}),
        None,
        'tuned.safetensors is not an official file, so its version is unknown.*Set "version" to 1.5 or 1.6',
        UsageError,
    ),
    "an unknown version": Wrong(
        lambda models: put_safetensors(models / "new.safetensors", {metadata.VERSION: "2.0"}),
        None,
        "its version is unknown",
        UsageError,
    ),
    "an incomplete UNet": Wrong(
        lambda models: put(models / UNET_15, CONTENTS["1.5"][:-1]) and None,
        None,
        r"its version is unknown.*has 139 bytes, and official files have 140 \(1.5\) and 150 \(1.6\) bytes.*incomplete",
        UsageError,
    ),
    "an incomplete safetensors UNet": Wrong(
        lambda models: put(models / "latentsync/1.5/latentsync_unet.safetensors", b"\x08\0\0\0\0\0\0\0{") and None,
        None,
        "cannot be read as weights .* incomplete. Delete this file, then download it again",
    ),
    "an incomplete Whisper": Wrong(
        lambda models: changed(models, TINY, CONTENTS["whisper"][:-1]),
        None,
        "tiny.pt cannot be read as weights",
    ),
    "another VAE": Wrong(
        lambda models: changed(models, SD_VAE, b"") or (put_safetensors(models / SD_VAE, {}) and None),
        None,
        r"is not the official sd-vae-ft-mse.safetensors. The file has [\d,]+ bytes instead of 15. "
        'Move this file to another folder and download .*, or connect your own VAE to the "vae" input of Load Model',
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_locate_refuses_wrong_files(models: Path, wrong: Wrong) -> None:
    unet = wrong.make(models)
    with pytest.raises(wrong.error, match=wrong.message):
        located(models, wrong.version, unet)


def test_locate_refuses_another_whisper(models: Path) -> None:
    put_unet(models, "1.5")
    torch.save({"dims": {}, "model_state_dict": {"weight": torch.zeros(1)}}, models / TINY)
    with pytest.raises(
        WeightsError, match=r"tiny.pt is not the official tiny.pt. The file has [\d,]+ bytes instead of 11"
    ):
        located(models)


def test_identify_unet_takes_the_version_of_the_user(models: Path) -> None:
    tuned = put_safetensors(models / "latentsync" / "tuned.safetensors", {})
    assert located(models, "1.6", tuned).spec.resolution == 512


def test_require_finds_and_checks_the_landmarker(models: Path, published: Published) -> None:
    folders = locate.folders_in(models)
    path = models / published.landmarker.path
    assert locate.require(published.landmarker, folders) == path
    path.write_bytes(b"half")
    with pytest.raises(WeightsError, match="is not the official face_landmarker"):
        locate.require(published.landmarker, folders)
    path.unlink()
    put_unet(models, "1.5")
    with pytest.raises(WeightsError, match=r"Model files are missing \(1\)(?s:.*)latentsync download 1.5 --models"):
        locate.require(published.landmarker, folders)


def test_verify_compares_hashes_with_progress(models: Path, published: Published) -> None:
    unet = put_unet(models, "1.5")
    assert [step.what for step in locate.verify(published.models["1.6"].unet, unet)] == ["verifying latentsync_unet.pt"]
    for file, path in ((published.models["1.5"].unet, unet), (published.vae, models / SD_VAE)):
        run(locate.verify(file, path))
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert located(models).spec.version == "1.5", "loading checks the size"
        with pytest.raises(WeightsError, match=r"is damaged. The SHA-256 is \w{64}, not \w{64}"):
            run(locate.verify(file, path))


def test_verify_accepts_converted_files(models: Path, published: Published) -> None:
    converted = put_safetensors(models / "mine.safetensors", {metadata.VERSION: "1.5"})
    assert list(locate.verify(published.models["1.5"].unet, converted)) == []


def test_locate_accepts_untrained_weights(tmp_path: Path) -> None:
    write_models(tmp_path, "1.6")
    assert located(tmp_path).spec.version == "1.6"
    with pytest.raises(WeightsError, match=r"latentsync_unet.pt"):
        located(tmp_path, "1.5")


def test_locate_takes_the_resolution_of_the_metadata(models: Path) -> None:
    header = {metadata.VERSION: "1.5", metadata.RESOLUTION: "384"}
    assert locate.identify_unet(put_safetensors(models / "tuned.safetensors", header)).resolution == 384


@pytest.mark.parametrize("resolution", ["100", "0", "4096", "-64", "wide", ""])
def test_locate_refuses_an_impossible_resolution(models: Path, resolution: str) -> None:
    header = {metadata.VERSION: "1.5", metadata.RESOLUTION: resolution}
    path = put_safetensors(models / "tuned.safetensors", header)
    with pytest.raises(WeightsError, match=r"tuned.safetensors has metadata .* multiple of 64, from 64 to 2048"):
        locate.identify_unet(path)
