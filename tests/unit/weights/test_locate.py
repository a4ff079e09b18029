"""Where weights are found, and the sentence that every wrong file gets.

The published files are stood in for by small ones: the tables of `spec` are replaced, the code is the real one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from latentsync import hub, marks, synthetic
from latentsync.errors import LatentSyncError, UsageError, WeightsError
from latentsync.hub import Folders, ModelFiles
from latentsync.progress import run
from latentsync.weights import catalog
from latentsync.weights.catalog import ModelSpec, Version, WeightFile

CONTENTS: dict[str, bytes] = {
    "1.5": b"weights of 1.5" * 10,
    "1.6": b"weights of 1.6!" * 10,
    "whisper": b"the ear",
    "vae": b"the eye of the beholder",
    "vae of CompVis": b"the eye of CompVis",
    "landmarker": b"the face",
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
        vae=dataclasses.replace(stand_in(catalog.VAE, CONTENTS["vae"]), twins=(twin,)),
        landmarker=stand_in(catalog.FACE_LANDMARKER, CONTENTS["landmarker"]),
    )
    names = ("MODELS", "WHISPER", "VAE", "FACE_LANDMARKER")
    for name, table in zip(names, tables, strict=True):
        monkeypatch.setattr(hub, name, table)
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
    """A models folder with all files except the UNets."""
    put(tmp_path / published.whisper.path, CONTENTS["whisper"])
    put(tmp_path / published.vae.path, CONTENTS["vae"])
    put(tmp_path / published.landmarker.path, CONTENTS["landmarker"])
    return tmp_path


def put_unet(models: Path, version: Version, content: str | None = None) -> Path:
    return put(models / catalog.MODELS[version].unet.path, CONTENTS[content or version])


def locate(models: Path, version: Version | None = None, unet: Path | None = None) -> ModelFiles:
    return run(hub.locate(hub.folders_in(models), version, unet))


def test_locate_finds_files_in_place(models: Path) -> None:
    unet = put_unet(models, "1.5")
    found = locate(models)
    assert (found.spec.version, found.unet) == ("1.5", unet)
    assert found.whisper == models / "latentsync" / "whisper" / "tiny.pt"
    assert found.vae == models / "vae" / "sd-vae-ft-mse.safetensors"


@pytest.mark.parametrize("place", ["checkpoints/LatentSync-1.6/latentsync_unet.pt", "unet/lipsync.pt"])
def test_locate_knows_files_of_other_packs_by_hash(models: Path, place: str) -> None:
    unet = put(models / place, CONTENTS["1.6"])
    assert locate(models) == locate(models, "1.6")
    assert (locate(models).spec.version, locate(models).unet) == ("1.6", unet)


def test_locate_finds_vae_of_any_name_and_layout(models: Path) -> None:
    put_unet(models, "1.5")
    (models / "vae" / "sd-vae-ft-mse.safetensors").unlink()
    elsewhere = put(models / "LatentSync" / "vae" / "diffusion_pytorch_model.safetensors", CONTENTS["vae"])
    assert locate(models).vae == elsewhere
    elsewhere.write_bytes(CONTENTS["vae of CompVis"])
    assert locate(models).vae == elsewhere


def test_locate_ignores_file_with_only_the_right_size(models: Path) -> None:
    put(models / "checkpoints" / "other.pt", bytes(len(CONTENTS["1.5"])))
    with pytest.raises(WeightsError, match="missing"):
        locate(models)


def test_locate_follows_links_once(models: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    unet = put(elsewhere / "deep" / "weights.pt", CONTENTS["1.5"])
    (elsewhere / "deep" / "loop").symlink_to(elsewhere)
    (models / "linked").symlink_to(elsewhere)
    assert locate(models).unet == models / "linked" / unet.relative_to(elsewhere)


def test_locate_searches_every_folder_safetensors_first(models: Path, tmp_path: Path) -> None:
    put_unet(models, "1.5")
    second = put_safetensors(tmp_path / "second" / "1.5" / "latentsync_unet.safetensors", {marks.VERSION: "1.5"})
    folders = Folders({"latentsync": (models / "latentsync", tmp_path / "second"), "vae": (models / "vae",)})
    assert run(hub.locate(folders)).unet == second


@pytest.mark.parametrize(
    ("there", "card_bytes", "taken"),
    [
        (("1.5", "1.6"), 24_000_000_000, "1.6"),
        (("1.5", "1.6"), 12_500_000_000, "1.6"),
        (("1.5", "1.6"), 8_500_000_000, "1.5"),
        (("1.5", "1.6"), None, "1.5"),
        (("1.6",), None, "1.6"),
        (("1.5",), 24_000_000_000, "1.5"),
    ],
)
def test_locate_auto_takes_existing_and_fitting_version(
    models: Path, there: tuple[Version, ...], card_bytes: int | None, taken: Version
) -> None:
    for version in there:
        put_unet(models, version)
    found = run(hub.locate(hub.folders_in(models), prefer=hub.preference(card_bytes)))
    assert found.spec.version == taken


def test_locate_hash_decides_version(models: Path) -> None:
    put_unet(models, "1.6", content="1.5")
    assert locate(models).spec.version == "1.5"


def test_locate_lists_all_missing_files(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsError) as raised:
        locate(tmp_path, "1.6")
    said = str(raised.value)
    assert said.startswith("4 model files are missing.")
    for file in (published.models["1.6"].unet, published.whisper, published.vae, published.landmarker):
        place = tmp_path / file.path
        assert f"{place.name} ({file.size_bytes / 1e6:,.0f} MB) into {place.parent}\n    from {file.url}" in said
    assert f'Run `python -m latentsync download 1.6 --models "{tmp_path}"`, or put them there by hand.' in said


def test_locate_names_comfyui_way_to_download(tmp_path: Path, published: Published) -> None:
    with pytest.raises(WeightsError, match="Switch on download_missing in Load Model, or put") as raised:
        run(hub.locate(dataclasses.replace(hub.folders_in(tmp_path), models=None)))
    assert "python -m" not in str(raised.value)


def test_locate_names_only_needed_files(tmp_path: Path, published: Published) -> None:
    """Load Model downloads the files that `locate` asks for, and the face landmarker."""
    whisper, vae, landmarker = published.whisper, published.vae, published.landmarker
    unet, own = published.models["1.6"].unet, tmp_path / "tuned.safetensors"
    assert hub.files_of("1.6") == (unet, whisper, vae, landmarker)
    assert hub.files_of("1.6", own) == (whisper, vae, landmarker)
    assert hub.files_of("1.6", own, needs_vae=False) == (whisper, landmarker)
    assert hub.networks_of("1.6", needs_vae=False) == (unet, whisper)


def test_locate_ignores_vae_if_one_is_connected(models: Path, published: Published) -> None:
    put_unet(models, "1.5")
    (models / published.vae.path).unlink()
    assert run(hub.locate(hub.folders_in(models), needs_vae=False)).spec.version == "1.5"


def test_locate_hashes_large_files_in_steps(models: Path) -> None:
    put_unet(models, "1.5")
    assert "checking latentsync_unet.pt" in {step.what for step in hub.locate(hub.folders_in(models))}


class Wrong(NamedTuple):
    """A wrong file, the requested version, and the error that the user reads."""

    make: Callable[[Path], Path | None]
    version: Version | None
    said: str
    error: type[LatentSyncError] = WeightsError


def changed(models: Path, path: str, content: bytes) -> None:
    put_unet(models, "1.5")
    put(models / path, content)


UNET_15 = "latentsync/1.5/latentsync_unet.pt"
UNET_16 = "latentsync/1.6/latentsync_unet.pt"
TINY = "latentsync/whisper/tiny.pt"
SD_VAE = "vae/sd-vae-ft-mse.safetensors"
FLIPPED = b"?"

WRONG: dict[str, Wrong] = {
    "1.5 weights as 1.6": Wrong(
        lambda models: put(models / UNET_15, CONTENTS["1.5"]),
        "1.6",
        r"latentsync_unet.pt: holds the weights of 1.5, not of 1.6: choose version 1.5 \(or auto\), or another file",
    ),
    "1.6 weights as 1.5": Wrong(
        lambda models: put(models / UNET_16, CONTENTS["1.6"]), "1.5", "holds the weights of 1.6, not of 1.5"
    ),
    "1.5 weights in the folder of 1.6": Wrong(
        lambda models: put(models / UNET_16, CONTENTS["1.5"]) and None, "1.6", "holds the weights of 1.5, not of 1.6"
    ),
    "converted 1.5 weights as 1.6": Wrong(
        lambda models: put_safetensors(models / "mine.safetensors", {marks.VERSION: "1.5"}),
        "1.6",
        "mine.safetensors: holds the weights of 1.5, not of 1.6",
    ),
    "an unknown file without a version": Wrong(
        lambda models: put_safetensors(models / "tuned.safetensors", {}),
        None,
        "tuned.safetensors: nobody knows this file, .*: say which version it is of",
        UsageError,
    ),
    "a version that is none of ours": Wrong(
        lambda models: put_safetensors(models / "new.safetensors", {marks.VERSION: "2.0"}),
        None,
        "nobody knows this file",
        UsageError,
    ),
    "an unknown file in a version's place": Wrong(
        lambda models: put(models / UNET_15, b"tuned") and None, None, "nobody knows this file", UsageError
    ),
    "a corrupt UNet": Wrong(
        lambda models: put(models / UNET_15, CONTENTS["1.5"][:-1] + FLIPPED) and None,
        "1.5",
        r"is corrupt: its size is that of latentsync_unet.pt, but its sha256 begins with \w{12}, not with \w{12}. "
        r"Delete it and download it again from https://huggingface.co/ByteDance/LatentSync-1.5",
    ),
    "a safetensors UNet cut short": Wrong(
        lambda models: put(models / "latentsync/1.5/latentsync_unet.safetensors", b"\x08\0\0\0\0\0\0\0{") and None,
        None,
        "cannot be read as weights .* cut short: delete it and download it again",
    ),
    "a corrupt Whisper": Wrong(
        lambda models: changed(models, TINY, CONTENTS["whisper"][:-1] + FLIPPED),
        None,
        "tiny.pt: is corrupt: .* download it again from https://huggingface.co/ByteDance",
    ),
    "a corrupt VAE": Wrong(
        lambda models: changed(models, SD_VAE, CONTENTS["vae"][:-1] + FLIPPED),
        None,
        "sd-vae-ft-mse.safetensors: is corrupt: .* download it again from https://huggingface.co/stabilityai",
    ),
    "another VAE under the name": Wrong(
        lambda models: changed(models, SD_VAE, b"") or (put_safetensors(models / SD_VAE, {}) and None),
        None,
        r"is not the file that belongs there: it has \d+ bytes, sd-vae-ft-mse.safetensors has 23. "
        "Move it away .* or wire it into Load Model's vae input if you mean it",
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_locate_reports_every_wrong_file(models: Path, wrong: Wrong) -> None:
    unet = wrong.make(models)
    with pytest.raises(wrong.error, match=wrong.said):
        locate(models, wrong.version, unet)


def test_locate_refuses_another_whisper(models: Path) -> None:
    put_unet(models, "1.5")
    torch.save({"dims": {}, "model_state_dict": {"weight": torch.zeros(1)}}, models / TINY)
    with pytest.raises(WeightsError, match=r"tiny.pt: is not the file that belongs there: .* bytes, tiny.pt has 7"):
        locate(models)


def test_locate_trusts_user_about_fine_tune(models: Path) -> None:
    tuned = put_safetensors(models / "latentsync" / "tuned.safetensors", {})
    assert locate(models, "1.6", tuned).spec.resolution == 512
    official_size = put(models / "latentsync" / "tuned.pt", bytes(len(CONTENTS["1.5"])))
    assert locate(models, "1.6", official_size).spec.version == "1.6"


def test_locate_finds_and_checks_landmarker(models: Path, published: Published) -> None:
    folders = hub.folders_in(models)
    place = models / published.landmarker.path
    assert hub.require(published.landmarker, folders) == place
    moved = models / "face_landmarker.task"
    place.rename(moved)
    assert hub.require(published.landmarker, folders) == moved
    place.write_bytes(b"the fake")
    with pytest.raises(WeightsError, match="is corrupt"):
        hub.require(published.landmarker, folders)
    place.unlink()
    moved.unlink()
    put_unet(models, "1.5")
    with pytest.raises(WeightsError, match=r"1 model file is missing(?s:.*)download 1.5 --models"):
        hub.require(published.landmarker, folders)


def test_locate_accepts_untrained_weights(tmp_path: Path) -> None:
    synthetic.write_models(tmp_path, "1.6")
    assert locate(tmp_path).spec.version == "1.6"
    with pytest.raises(WeightsError, match=r"latentsync_unet.pt"):
        locate(tmp_path, "1.5")
