"""ComfyUI's model folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import folder_paths

from ..latentsync import hub

if TYPE_CHECKING:
    pass


UNET_SUFFIXES = frozenset({".pt", ".safetensors"})


NO_MODELS = {"custom_nodes", "datasets", "configs"}  # kinds of folders that hold something else


def register_model_folders() -> None:
    """Tell ComfyUI of `models/latentsync`, keeping what the user's extra_model_paths.yaml says of it."""
    folder_paths.add_model_folder_path("latentsync", str(Path(folder_paths.models_dir) / "latentsync"))
    folder_paths.folder_names_and_paths["latentsync"][1].update(UNET_SUFFIXES)


def model_folders() -> hub.Folders:
    """Every folder that ComfyUI knows of each kind; files of other packs may lie in any of its models folders."""
    kinds = {kind: [Path(folder) for folder in folder_paths.get_folder_paths(kind)] for kind in hub.KINDS}
    return hub.Folders(kinds, [*_models_folders(), *_folders_of_packs()])


def _models_folders() -> Iterator[Path]:
    for kind in sorted(folder_paths.folder_names_and_paths.keys() - NO_MODELS):
        yield from map(Path, folder_paths.get_folder_paths(kind))


def _folders_of_packs() -> Iterator[Path]:
    """Where other packs keep weights inside their own folder."""
    for folder in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        yield from sorted(folder.glob("*/checkpoints"))


def temp_folder() -> Path:
    """ComfyUI's folder for temporary files."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unet_files() -> list[str]:
    """Names of the UNet files in `models/latentsync`, for a combo."""
    return [name for name in folder_paths.get_filename_list("latentsync") if PurePath(name).parts[0] != "whisper"]
