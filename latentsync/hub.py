"""Where weights are looked for, and which network each file holds.

A models folder is laid out as ComfyUI's: `latentsync/1.6/latentsync_unet.pt`, `vae/sd-vae-ft-mse.safetensors`, ...
The first part of each path is the kind of folder; ComfyUI may know several folders of a kind. A file that lies
elsewhere, or under another name, is recognised by its size and hash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import marks
from .errors import UsageError, WeightsError
from .progress import Task, run
from .verify import sha256
from .weights.catalog import FACE_LANDMARKER, MODELS, VAE, WHISPER, ModelSpec, Version, WeightFile

KINDS = ("latentsync", "vae")
BEST_CARD_BYTES = 10_000_000_000  # over twice what 1.6 is counted to need (docs/memory.md)
SMALLEST_FIRST: tuple[Version, ...] = ("1.5", "1.6")
BEST_FIRST: tuple[Version, ...] = ("1.6", "1.5")


@dataclass(frozen=True, slots=True)
class Folders:
    """Where to look.

    kinds: folders by name, in order; a download goes into the first.
    trees: folders that are looked through to the bottom, by hash.
    models: the one that holds every kind, as the command line's does; None in ComfyUI, where each may lie anywhere.
    """

    kinds: Mapping[str, Sequence[Path]]
    trees: Sequence[Path] = ()
    models: Path | None = None


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model on this machine, each known to be what it should be; `others` beside the UNet."""

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
    """The folders of one models folder that is laid out as ComfyUI's."""
    return Folders({kind: (models / kind,) for kind in KINDS}, (models,), models)


def preference(card_bytes: int | None) -> tuple[Version, ...]:
    """The versions in the order to take them, for a card with so much memory (None: no card)."""
    return BEST_FIRST if card_bytes is not None and card_bytes >= BEST_CARD_BYTES else SMALLEST_FIRST


def locate(
    folders: Folders,
    version: Version | None = None,
    unet: Path | None = None,
    *,
    prefer: Sequence[Version] = BEST_FIRST,
    needs_vae: bool = True,
) -> Task[ModelFiles]:
    """Find the files of a model, and make sure of each.

    Args:
        folders: where to look.
        version: the wanted one; None takes the first of `prefer` whose UNet is there.
        unet: a file to take as UNet instead of the usual one; a file that nobody knows needs `version`.
        needs_vae: whether a VAE is looked for.

    Returns:
        The files; a known file decides the version.

    Raises:
        WeightsError: naming every missing file with its folder, size and address; or a file that is another one.
        UsageError: the UNet is an unknown file and `version` is not said.
    """
    likely = version or at_hand(folders, prefer)
    wanted = networks_of(likely, unet, needs_vae=needs_vae)
    found = yield from find_all(wanted, folders)
    if len(found) < len(wanted):
        raise missing_files([file for file in wanted if file not in found], folders, likely)
    published = MODELS[likely].unet
    chosen = unet or found[published]
    spec = yield from spec_of(chosen, version)
    others = {file: path for file, path in found.items() if file != published}
    for file, path in others.items():
        yield from check(file, path)
    return ModelFiles(spec, chosen, others)


def networks_of(version: Version, unet: Path | None = None, *, needs_vae: bool = True) -> tuple[WeightFile, ...]:
    """The published files that a model is loaded from, beside a UNet that is given and a VAE that is not looked for."""
    return (*([] if unet else [MODELS[version].unet]), WHISPER, *([VAE] if needs_vae else []))


def files_of(version: Version, unet: Path | None = None, *, needs_vae: bool = True) -> tuple[WeightFile, ...]:
    """Everything that a run of a version may need: its networks, and the finder of faces."""
    return (*networks_of(version, unet, needs_vae=needs_vae), FACE_LANDMARKER)


def at_hand(folders: Folders, prefer: Sequence[Version] = BEST_FIRST) -> Version:
    """The first of these versions whose UNet seems to be there, judging by names and sizes; else the first."""
    there: list[Version] = [version for version in prefer if _glimpse(MODELS[version].unet, folders)]
    return (there or prefer)[0]


def require(file: WeightFile, folders: Folders) -> Path:
    """The place of one small file, or a WeightsError that says where to get it."""
    path = run(find(file, folders))
    if path is None:
        raise missing_files([file], folders, at_hand(folders))
    run(check(file, path))
    return path


def find_all(files: Sequence[WeightFile], folders: Folders) -> Task[dict[WeightFile, Path]]:
    """Where each file lies; those that are missing are left out."""
    found: dict[WeightFile, Path] = {}
    for file in files:
        path = yield from find(file, folders)
        if path is not None:
            found[file] = path
    return found


def find(file: WeightFile, folders: Folders) -> Task[Path | None]:
    """Where a file lies: under one of its names, or any file with its hash in the trees."""
    named = next((path for path in _places(file, folders) if path.is_file()), None)
    if named is not None:
        return named
    for path in _alike(file, folders):
        digest = yield from sha256(path)
        if digest in {each.sha256 for each in (file, *file.twins)}:
            return path
    return None


def destination(file: WeightFile, folders: Folders) -> Path:
    """Where a download of a file belongs."""
    kind, _, inside = file.path.partition("/")
    return folders.kinds[kind][0] / inside


def spec_of(unet: Path, version: Version | None) -> Task[ModelSpec]:
    """What a UNet file is: what it is known to be, else what the user says it is.

    Raises:
        WeightsError: it is known to be of another version, or corrupt.
        UsageError: nobody knows it, and no version is said.
    """
    known = yield from identify(unet)
    meant = known or version
    if meant is None:
        raise UsageError(
            f"{unet}: nobody knows this file, and weights cannot tell 1.5 from 1.6: say which version it is of."
        )
    if version not in (None, meant):
        raise WeightsError(
            f"{unet}: holds the weights of {meant}, not of {version}: choose version {meant} (or auto), "
            f"or another file. Weights of the other version give a blurred mouth."
        )
    return MODELS[meant]


def identify(path: Path) -> Task[Version | None]:
    """The version whose weights a UNet file holds, by our metadata or its hash; None if nobody knows it.

    Raises:
        WeightsError: name and size are a published file's, and the hash is not; or the file is cut short.
    """
    told = marks.read(path).get(marks.VERSION)
    marked: Version | None = next((spec.version for spec in MODELS.values() if spec.version == told), None)
    alike = [spec for spec in MODELS.values() if spec.unet.size_bytes == path.stat().st_size]
    if marked or not alike:
        return marked
    digest = yield from sha256(path)
    for spec in alike:
        if digest == spec.unet.sha256:
            return spec.version
    if path.name == alike[0].unet.name:
        raise _corrupt(path, alike[0].unet, digest)
    return None


def check(file: WeightFile, path: Path) -> Task[None]:
    """Make sure that a file of one fixed content (all but the UNet) has it; our untrained ones pass.

    Raises:
        WeightsError: it is corrupt, or another file.
    """
    size = path.stat().st_size
    alike = [each for each in (file, *file.twins) if each.size_bytes == size]
    if not alike and not _synthetic(path):
        raise _another(path, file)
    if alike:
        digest = yield from sha256(path)
        if digest != alike[0].sha256:
            raise _corrupt(path, alike[0], digest)


def missing_files(files: Sequence[WeightFile], folders: Folders, version: Version) -> WeightsError:
    """One error that lists every missing file with its folder, size and address, and says how to fetch a version's."""
    listed = [*files]
    if FACE_LANDMARKER not in listed and not _glimpse(FACE_LANDMARKER, folders):
        listed.append(FACE_LANDMARKER)
    lines = [f"{len(listed)} model file{'s are' if len(listed) > 1 else ' is'} missing."]
    for file in listed:
        place = destination(file, folders)
        lines.append(f"  {place.name} ({file.size_bytes / 1e6:,.0f} MB) into {place.parent}\n    from {file.url}")
    lines.append(f"{_fetching(folders, version)}, or put them there by hand.")
    return WeightsError("\n".join(lines))


def _fetching(folders: Folders, version: Version) -> str:
    """What makes a version's missing files come."""
    if folders.models is None:
        return "Switch on download_missing in Load Model"
    return f'Run `python -m latentsync download {version} --models "{folders.models}"`'


def _places(file: WeightFile, folders: Folders) -> Iterator[Path]:
    """Every place where a file may lie under one of its names; safetensors, which map, first."""
    names = sorted((file.path, *file.also), key=lambda name: not name.endswith(".safetensors"))
    for name in names:
        kind, _, inside = name.partition("/")
        yield from (folder / inside for folder in folders.kinds[kind])


def _glimpse(file: WeightFile, folders: Folders) -> bool:
    """Whether a file seems to be there, judging by names and sizes alone."""
    return any(path.is_file() for path in _places(file, folders)) or any(True for _ in _alike(file, folders))


def _alike(file: WeightFile, folders: Folders) -> Iterator[Path]:
    """Files in the trees that have the size and the kind of a published one."""
    wanted = {(Path(each.path).suffix, each.size_bytes) for each in (file, *file.twins)}
    suffixes = {suffix for suffix, _ in wanted}
    for path in _walk(folders.trees):
        if path.suffix in suffixes and path.is_file() and (path.suffix, path.stat().st_size) in wanted:
            yield path


def _walk(trees: Sequence[Path]) -> Iterator[Path]:
    """Every file under these folders, each folder once, links followed; hidden folders are left out."""
    seen: set[str] = set()
    for tree in trees:
        for folder, inside, names in os.walk(tree, followlinks=True):
            real = os.path.realpath(folder)
            inside[:] = [] if real in seen else sorted(name for name in inside if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(names) if real not in seen)
            seen.add(real)


def _synthetic(path: Path) -> bool:
    """Whether a file says that it holds our untrained weights."""
    if path.suffix == ".safetensors":
        return marks.read(path).get(marks.WEIGHTS) == marks.SYNTHETIC
    if path.suffix != ".pt":
        return False
    from .checkpoint import read

    return read(path).metadata.get(marks.WEIGHTS) == marks.SYNTHETIC


def _corrupt(path: Path, file: WeightFile, digest: str) -> WeightsError:
    return WeightsError(
        f"{path}: is corrupt: its size is that of {file.name}, but its sha256 begins with {digest[:12]}, not with "
        f"{file.sha256[:12]}. Delete it and download it again from {file.url}"
    )


def _another(path: Path, file: WeightFile) -> WeightsError:
    return WeightsError(
        f"{path}: is not the file that belongs there: it has {path.stat().st_size:,} bytes, {file.name} has "
        f"{file.size_bytes:,}. Move it away and take {file.url}"
        + (", or wire it into Load Model's vae input if you mean it." if file == VAE else ".")
    )
