"""ComfyUI's model folders."""

from __future__ import annotations

from pathlib import Path, PurePath

import folder_paths

from ..latentsync.weights import locate

UNET_SUFFIXES = frozenset({".pt", ".safetensors"})


def register_model_folders() -> None:
    """Register `models/latentsync` with ComfyUI. Paths from the user's extra_model_paths.yaml stay valid."""
    folder_paths.add_model_folder_path("latentsync", str(Path(folder_paths.models_dir) / "latentsync"))
    folder_paths.folder_names_and_paths["latentsync"][1].update(UNET_SUFFIXES)


def model_folders() -> locate.Folders:
    """ComfyUI's folders of each kind, and the checkpoint folders of other LatentSync packs."""
    kinds = {kind: [Path(folder) for folder in folder_paths.get_folder_paths(kind)] for kind in locate.KINDS}
    packs = map(Path, folder_paths.get_folder_paths("custom_nodes"))
    return locate.Folders(kinds, [folder for pack in packs for folder in sorted(pack.glob("*/checkpoints"))])


def temp_folder() -> Path:
    """ComfyUI's folder for temporary files."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unet_files() -> list[str]:
    """Names of the UNet files in `models/latentsync`, without downloads in progress, which have hidden folders."""
    names = folder_paths.get_filename_list("latentsync")
    visible = [name for name in names if not any(part.startswith(".") for part in PurePath(name).parts)]
    return [name for name in visible if PurePath(name).parts[0] not in ("whisper", "syncnet")]
