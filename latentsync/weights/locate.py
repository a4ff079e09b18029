"""Find weights by their known names, and decide the model version.

A models folder has ComfyUI's layout: `latentsync/1.6/latentsync_unet.pt`, `vae/sd-vae-ft-mse.safetensors`, ...
The first part of each path is the kind of folder. ComfyUI can have several folders of the same kind.
Loading checks the size and the metadata of a file. `download`, `convert` and `doctor` also check the hash.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, WeightsError, python_command
from ..fileio import sha256_file
from ..progress import Task
from . import metadata
from .catalog import (
    EXTRAS,
    FACE_LANDMARKER,
    MODELS,
    SYNCNET,
    VAE,
    WHISPER,
    ModelSpec,
    UnverifiedFile,
    Version,
    WeightFile,
)

if TYPE_CHECKING:
    import torch

log = logging.getLogger("latentsync")

KINDS = ("latentsync", "vae")
DEFAULT_MODELS_DIR = Path("~/.cache/latentsync")
RESOLUTIONS = range(64, 2049, 64)  # of the UNet. The VAE divides by 8, and three levels of the UNet by 8


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders to search for weights.

    kinds: the folders of each kind, in order of preference. Downloads go into the first folder.
    wrappers: `checkpoints` folders of other LatentSync packs.
    models: the folder that contains all kinds, on the command line. None in ComfyUI.
    """

    kinds: Mapping[str, Sequence[Path]]
    wrappers: Sequence[Path] = ()
    models: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model on this machine. `others` are all files except the UNet."""

    spec: ModelSpec
    unet: Path
    others: Mapping[WeightFile, Path]

    @property
    def whisper(self) -> Path:
        return self.others[WHISPER]

    @property
    def vae(self) -> Path:
        return self.others[VAE]


def folders_in(models: Path) -> Folders:
    """The folders of one models folder with ComfyUI's layout."""
    return Folders({kind: (models / kind,) for kind in KINDS}, models=models)


def locate(
    folders: Folders,
    version: Version | None = None,
    unet: Path | None = None,
    *,
    memory_bytes: int | None = None,
    needs_vae: bool = True,
) -> ModelFiles:
    """Find the files of a model, and check their sizes and metadata.

    Args:
        folders: the folders to search.
        version: the wanted version. None takes `default_version`.
        unet: a file to use in place of the published UNet. An unknown file needs `version`.
        memory_bytes: the memory of the device, see `default_version`.
        needs_vae: whether the model needs a VAE file.

    Returns:
        The files. A known UNet file decides the version.

    Raises:
        WeightsError: files are missing (the message lists all, with folder, size and URL), or a file is wrong.
        UsageError: the UNet is an unknown file and `version` is None.
    """
    likely = version or default_version(folders, memory_bytes)
    needed = required_networks(likely, unet, needs_vae=needs_vae)
    paths = find_all(needed, folders)
    if len(paths) < len(needed):
        raise missing_files([file for file in needed if file not in paths], folders, likely)
    published = MODELS[likely].unet
    chosen = unet or paths[published]
    spec = identify_unet(chosen, version)
    others = {file: path for file, path in paths.items() if file != published}
    for file, path in others.items():
        check_size(file, path)
    log.info("LatentSync %s: %s", spec.version, ", ".join(str(path) for path in (chosen, *others.values())))
    return ModelFiles(spec, chosen, others)


def required_networks(version: Version, unet: Path | None = None, *, needs_vae: bool = True) -> tuple[WeightFile, ...]:
    """The published files of a model's networks, without the UNet if `unet` replaces it."""
    return (*([] if unet else [MODELS[version].unet]), WHISPER, *([VAE] if needs_vae else []))


def required_files(version: Version, unet: Path | None = None, *, needs_vae: bool = True) -> tuple[WeightFile, ...]:
    """All published files that a run needs: the networks and the face detector."""
    return (*required_networks(version, unet, needs_vae=needs_vae), FACE_LANDMARKER)


def default_version(folders: Folders, memory_bytes: int | None = None) -> Version:
    """The best version for a device with this memory (None: no GPU). A version on disk comes first."""
    on_disk = [spec for spec in MODELS.values() if exists(spec.unet, folders)]
    specs = on_disk or list(MODELS.values())
    fitting = [spec for spec in specs if spec.min_vram_bytes <= (memory_bytes or 0)]
    if fitting:
        return max(fitting, key=lambda spec: spec.rank).version
    return min(specs, key=lambda spec: spec.min_vram_bytes).version


def device_memory(device: torch.device) -> int | None:
    """The memory of an accelerator in bytes. None for a CPU, and for a device that does not report its memory."""
    import torch

    backend: Any = getattr(torch, device.type, None)
    if hasattr(backend, "mem_get_info"):
        return int(backend.mem_get_info(device)[1])
    if hasattr(backend, "recommended_max_memory"):  # Apple's GPUs share the memory of the system
        return int(backend.recommended_max_memory())
    return None


def exists(file: WeightFile, folders: Folders) -> bool:
    """Whether a file is on disk."""
    return find(file, folders) is not None


def require(file: WeightFile | UnverifiedFile, folders: Folders) -> Path:
    """The path of one file. For a missing file, raises a WeightsError with the download instruction."""
    if isinstance(file, UnverifiedFile):
        return _require_unverified(file, folders)
    path = find(file, folders)
    if path is None:
        name = next((name for name, extra in EXTRAS.items() if extra == file), None)
        raise missing_files([file], folders, name or default_version(folders))
    check_size(file, path)
    return path


def _require_unverified(file: UnverifiedFile, folders: Folders) -> Path:
    kind, _, name = file.path.partition("/")
    paths = [folder / name for folder in folders.kinds[kind]]
    paths += [folder / file.wrapper_path for folder in folders.wrappers if file.wrapper_path]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise WeightsError(
            f"{paths[0]} is missing. LatentSync does not download this file, because the checksum is not known. "
            f"Download {file.url} ({file.size}, {file.license}) to this path yourself."
        )
    return path


def find_all(files: Sequence[WeightFile], folders: Folders) -> dict[WeightFile, Path]:
    """The paths of the files that are on disk."""
    paths = {file: find(file, folders) for file in files}
    return {file: path for file, path in paths.items() if path is not None}


def find(file: WeightFile, folders: Folders) -> Path | None:
    """The path of a file under one of its names. Safetensors come first, because they load without a copy."""
    return next((path for path in _candidates(file, folders) if path.is_file()), None)


def destination(file: WeightFile, folders: Folders) -> Path:
    """The path for the download of a file."""
    kind, _, name = file.path.partition("/")
    return folders.kinds[kind][0] / name


def identify_unet(path: Path, version: Version | None = None) -> ModelSpec:
    """The model of a UNet file, from its metadata, its size, or else from `version`.

    A resolution in the metadata overrides the resolution of the version, because a fine-tuned UNet may have another
    resolution.

    Raises:
        WeightsError: the file has another version than `version`, is incomplete, or has a wrong resolution.
        UsageError: the file is unknown and `version` is None.
    """
    size, header = path.stat().st_size, metadata.read(path)
    known = MODELS.get(header.get(metadata.VERSION, ""))
    known = known or next((spec for spec in MODELS.values() if spec.unet.size_bytes == size), None)
    if known is None:
        if version is not None:
            return MODELS[version]
        official = " and ".join(f"{spec.unet.size_bytes:,} ({spec.version})" for spec in MODELS.values())
        raise UsageError(
            f"{path} is not an official file, so its version is unknown. The file has {size:,} bytes, and official "
            f'files have {official} bytes. Set "version" to {" or ".join(MODELS)}. If you downloaded an official file, '
            "it is incomplete. Delete the file and download it again."
        )
    if version not in (None, known.version):
        raise WeightsError(
            f'{path} has the weights of version {known.version}, not of {version}. Set "version" to {known.version} or '
            "auto, or choose another file. Weights of the wrong version give a blurred mouth."
        )
    resolution = header.get(metadata.RESOLUTION, str(known.resolution))
    if not resolution.isdecimal() or int(resolution) not in RESOLUTIONS:
        raise WeightsError(
            f"{path} has metadata with a resolution of {resolution[:20]} pixels. The resolution must be a multiple of "
            f"{RESOLUTIONS.step}, from {RESOLUTIONS.start} to {RESOLUTIONS[-1]}. Convert the file again."
        )
    return replace(known, resolution=int(resolution))


def check_size(file: WeightFile, path: Path) -> None:
    """Check that a file has the size of the published file. The miniature model and untrained weights pass.

    Raises:
        WeightsError: the file is incomplete, or is another file.
    """
    if _published_like(path, (file, *file.equivalents)) is None and not _is_small(path):
        alternative = ', or connect your own VAE to the "vae" input of Load Model' if file == VAE else ""
        raise WeightsError(
            f"{path} is not the official {file.name}. The file has {path.stat().st_size:,} bytes instead of "
            f"{file.size_bytes:,}. Move this file to another folder and download {file.url}{alternative}."
        )


def verify(file: WeightFile, path: Path) -> Task[None]:
    """Compare the hash of a file with the hash of the published file of the same size. Converted files pass.

    Raises:
        WeightsError: the file is damaged.
    """
    unets = [spec.unet for spec in MODELS.values()]
    published = _published_like(path, unets if file in unets else (file, *file.equivalents))
    if published is not None:
        digest = yield from sha256_file(path)
        check_digest(published, path, digest)


def check_digest(file: WeightFile, path: Path, digest: str) -> None:
    """Raise WeightsError if the hash of a file does not match the published hash."""
    if digest != file.sha256:
        raise WeightsError(
            f"{path} is damaged. The SHA-256 is {digest}, not {file.sha256}. Delete this file and download {file.url}."
        )


def missing_files(files: Sequence[WeightFile], folders: Folders, name: str) -> WeightsError:
    """One error that lists every missing file with its folder, size and URL, and says how to download them.

    Args:
        name: name of the files for the command `download`: a version, or a key of `EXTRAS`.
    """
    missing = [*files]
    if name in MODELS and FACE_LANDMARKER not in missing and not exists(FACE_LANDMARKER, folders):
        missing.append(FACE_LANDMARKER)
    files_and_folders = "\n".join(
        f"  {path.name} ({file.size_bytes / 1e6:,.0f} MB) into {path.parent}\n    from {file.url}"
        for file, path in ((file, destination(file, folders)) for file in missing)
    )
    command = python_command(f'latentsync download {name} --models "{folders.models}"')
    node = "Load Model" if name in MODELS else "Face Prep" if name == "occlusion" else "Score"
    remedy = f"Switch on download_missing in {node}" if folders.models is None else f"Run {command}"
    terms = f' "takes" and the sync score need SyncNet (license: {SYNCNET.license}).' if name == "syncnet" else ""
    without = ' You can also set "occlusion" to off.' if name == "occlusion" else ""
    return WeightsError(
        f"Model files are missing ({len(missing)}):\n{files_and_folders}\n{remedy}, or put the files there "
        f"yourself.{without}{terms}"
    )


def _candidates(file: WeightFile, folders: Folders) -> Iterator[Path]:
    names = sorted((file.path, *file.aliases), key=lambda name: not name.endswith(".safetensors"))
    for name in names:
        kind, _, inside = name.partition("/")
        yield from (folder / inside for folder in folders.kinds[kind])
    if file.wrapper_path:  # 1.5 and 1.6 have the same name there, so the size tells them apart
        paths = (folder / file.wrapper_path for folder in folders.wrappers)
        yield from (path for path in paths if path.is_file() and _published_like(path, (file, *file.equivalents)))


def _published_like(path: Path, files: Sequence[WeightFile]) -> WeightFile | None:
    size = path.stat().st_size
    return next((file for file in files if file.size_bytes == size), None)


def _is_small(path: Path) -> bool:
    if path.suffix == ".safetensors":
        return metadata.read(path).get(metadata.WEIGHTS) in metadata.SMALL
    from .loader import PICKLES, read

    if path.suffix not in PICKLES:
        return False
    return read(path).metadata.get(metadata.WEIGHTS) in metadata.SMALL
