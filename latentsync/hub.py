"""Where weights are looked for.

A models folder is laid out as ComfyUI's: `latentsync/1.6/latentsync_unet.pt`, `vae/sd-vae-ft-mse.safetensors`, ...
The first part of each path is the kind of folder; ComfyUI may know several folders of a kind.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import WeightsError
from .spec import MODELS, VAE, WHISPER, ModelSpec, Version, WeightFile

Folders = Mapping[str, Sequence[Path]]  # kind -> folders searched in order; downloads belong in the first

KINDS = ("latentsync", "vae")
DEFAULT_FOLDER = Path("~/.cache/latentsync")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model on this machine."""

    spec: ModelSpec
    unet: Path
    whisper: Path
    vae: Path


def folders_in(models: Path) -> Folders:
    """The folders of one models folder that is laid out as ComfyUI's."""
    return {kind: (models / kind,) for kind in KINDS}


def locate(folders: Folders, version: Version | None = None, unet: Path | None = None) -> ModelFiles:
    """Find the files of a model.

    Args:
        folders: where to look.
        version: the wanted one; None takes 1.6 if its UNet is there, else 1.5.
        unet: a file to take as that version's UNet instead of the usual one; needs `version`.
    Raises:
        WeightsError: naming every missing file with its folder, size and address.
    """
    spec = MODELS[version or _version_at_hand(folders)]
    needed = (spec.unet, WHISPER, VAE) if unet is None else (WHISPER, VAE)
    found = {file: path for file in needed if (path := find(file, folders)) is not None}
    missing = [file for file in needed if file not in found]
    if missing:
        raise missing_files(missing, folders)
    return ModelFiles(spec, unet or found[spec.unet], found[WHISPER], found[VAE])


def require(file: WeightFile, folders: Folders) -> Path:
    """The place of one file, or a WeightsError that says where to get it."""
    path = find(file, folders)
    if path is None:
        raise missing_files([file], folders)
    return path


def find(file: WeightFile, folders: Folders) -> Path | None:
    """The first place where a file lies under one of its names."""
    return next((path for path in _places(file, folders) if path.is_file()), None)


def missing_files(files: Sequence[WeightFile], folders: Folders) -> WeightsError:
    """One error that lists every missing file with its folder, size and address."""
    lines = [f"{len(files)} model file{'s are' if len(files) > 1 else ' is'} missing. Download and put in place:"]
    for file in files:
        place = next(_places(file, folders))
        lines.append(f"  {place.name} ({file.size_bytes / 1e6:,.0f} MB) into {place.parent}\n    from {file.url}")
    return WeightsError("\n".join(lines))


def _places(file: WeightFile, folders: Folders) -> Iterator[Path]:
    for name in (*file.also, file.path) if file.path.endswith(".pt") else (file.path, *file.also):
        kind, _, inside = name.partition("/")
        yield from (folder / inside for folder in folders[kind])


def _version_at_hand(folders: Folders) -> Version:
    return "1.6" if find(MODELS["1.6"].unet, folders) else "1.5"
