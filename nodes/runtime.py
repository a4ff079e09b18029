"""What only ComfyUI can say: devices and dtypes, loaded models, model folders, progress and cancel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import folder_paths
import torch

from ..latentsync import hub
from ..latentsync.spec import LATENT_STRIDE, WINDOW_FRAMES, ModelSpec

if TYPE_CHECKING:
    from ..latentsync.models.whisper import WhisperEncoder
    from ..latentsync.sampling import Denoiser
    from ..latentsync.work import Work

T = TypeVar("T")

UNET_SUFFIXES = frozenset({".pt", ".safetensors"})
NO_MODELS = {"custom_nodes", "datasets", "configs"}  # kinds of folders that hold something else
WIDEST_CHANNELS = 3 * 2560  # of activations held at once per latent pixel: GEGLU of the first level, in and out


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model as ComfyUI manages it.

    spec: version and resolution.
    unet, whisper: ComfyUI's patchers; they decide where the weights are.
    codec: ComfyUI's VAE behind the library's interface.
    dtype: what the UNet computes in.
    files: that were read.
    """

    spec: ModelSpec
    unet: Any
    whisper: Any
    codec: VaeCodec
    dtype: torch.dtype
    files: tuple[Path, ...]

    @property
    def device(self) -> torch.device:
        return self.unet.load_device

    def denoiser(self) -> Denoiser:
        """The UNet, brought to its device."""
        latent = self.spec.resolution // LATENT_STRIDE
        activations = 2 * WINDOW_FRAMES * latent * latent * WIDEST_CHANNELS * self.dtype.itemsize
        mm.load_models_gpu([self.unet], memory_required=activations)
        return self.unet.model

    def encoder(self) -> WhisperEncoder:
        """Whisper's encoder, brought to its device."""
        mm.load_models_gpu([self.whisper])
        return self.whisper.model

    def __repr__(self) -> str:
        return f"LoadedModel({self.spec.version}, {self.spec.resolution} px, {self.dtype} on {self.device})"


class VaeCodec:
    """ComfyUI's VAE as the library's `Codec`. Looks for a cancel at every call."""

    def __init__(self, vae: comfy.sd.VAE) -> None:
        self.vae = vae

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        mm.throw_exception_if_processing_interrupted()
        return self.vae.encode(images.movedim(1, -1).add(1).div(2))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        mm.throw_exception_if_processing_interrupted()
        return self.vae.decode(latents).movedim(-1, 1).mul(2).sub(1)


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


def tracked(items: Iterable[T], total: int) -> Iterator[T]:
    """Pass `items` on, moving the node's progress bar and looking for a cancel at each."""
    bar = comfy.utils.ProgressBar(total)
    for done, item in enumerate(items, start=1):
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)
        yield item


def finished(work: Work[T]) -> T:
    """Do the work on files, moving the node's progress bar and looking for a cancel at each step."""
    try:
        while True:
            step = next(work)
            mm.throw_exception_if_processing_interrupted()
            comfy.utils.ProgressBar(step.total).update_absolute(step.done, step.total)
    except StopIteration as end:
        return end.value
    finally:
        work.close()
