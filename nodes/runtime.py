"""What only ComfyUI can say: devices and dtypes, loaded models, model folders, progress and cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from typing_extensions import override

from ..latentsync import hub
from ..latentsync.errors import DependencyError, RoomError
from ..latentsync.pipeline import PASSES, clips_at_once
from ..latentsync.room import Room, is_out_of_memory, room_error
from ..latentsync.spec import LATENT_STRIDE, MODELS, WINDOW_FRAMES, ModelSpec

if TYPE_CHECKING:
    from ..latentsync.models.layers import Heard
    from ..latentsync.models.unet import UNet
    from ..latentsync.models.whisper import WhisperEncoder
    from ..latentsync.sampling import Denoiser
    from ..latentsync.work import Work

T = TypeVar("T")

END: Any = object()  # of what is iterated over
UNET_SUFFIXES = frozenset({".pt", ".safetensors"})
NO_MODELS = {"custom_nodes", "datasets", "configs"}  # kinds of folders that hold something else
KINDS_OF_LAYERS = 64  # at most, each width counted once for whole batches and once for any other
CLIP_CHANNELS = 8200  # held at once for each latent pixel of a clip: more than benchmarks/footprint.py counts of any


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model as ComfyUI manages it.

    spec: version and resolution.
    unet, whisper: ComfyUI's patchers; they decide where the weights are.
    codec: ComfyUI's VAE behind the library's interface.
    dtype: what the UNet computes in.
    files: that were read.
    compiled: whether torch.compile writes the UNet's layers anew.
    """

    spec: ModelSpec
    unet: Any
    whisper: Any
    codec: VaeCodec
    dtype: torch.dtype
    files: tuple[Path, ...]
    compiled: bool = False

    @property
    def device(self) -> torch.device:
        return self.unet.load_device

    def denoiser(self, room: Room) -> Denoiser:
        """The UNet, for as many clips at once as there is room for; each batch of windows brings it to its device."""
        return CompiledUNet(self, room) if self.compiled else PatchedUNet(self, room)

    def room(self) -> Room:
        """Room for as many clips in the UNet as the free memory holds, once its weights are where they are to be.

        No more than those of one guided window of 512 pixels, which leave a card nothing to wait for, or, on the
        processor, of any one window. Where ComfyUI was started with --deterministic, one: another number at once is
        summed in another order, and free memory is another each time.
        """
        if self.device.type == "cpu":
            return clips_at_once(PASSES)
        if args.deterministic:
            return clips_at_once(1)
        self.load(PASSES)
        enough = PASSES * (MODELS["1.6"].resolution // self.spec.resolution) ** 2
        to_come = self.unet.model_size() - self.unet.loaded_size()
        free = mm.get_free_memory(self.device) - mm.extra_reserved_memory() - to_come
        return clips_at_once(min(enough, max(1, int(free // self._clip_bytes))))

    def load(self, clips: int) -> None:
        """Bring the UNet to its device, and make room there for the activations of so many clips."""
        with_room(lambda: mm.load_models_gpu([self.unet], memory_required=clips * self._clip_bytes))

    @property
    def _clip_bytes(self) -> int:
        latent = self.spec.resolution // LATENT_STRIDE
        return WINDOW_FRAMES * latent * latent * CLIP_CHANNELS * self.dtype.itemsize

    def encoder(self) -> WhisperEncoder:
        """Whisper's encoder, brought to its device."""
        with_room(lambda: mm.load_models_gpu([self.whisper]))
        return self.whisper.model

    def __repr__(self) -> str:
        return f"LoadedModel({self.spec.version}, {self.spec.resolution} px, {self.dtype} on {self.device})"


class PatchedUNet:
    """ComfyUI's patcher of the UNet as the library's `Denoiser`.

    Between two windows the VAE may have taken its place on the device, so that each begins with its return.
    """

    def __init__(self, model: LoadedModel, room: Room) -> None:
        self._model, self._room = model, room
        self._network: UNet = model.unet.model

    def hear(self, audio: torch.Tensor) -> Heard:
        self._model.load(min(self._room.most, PASSES * len(audio)))
        return self._network.hear(audio)

    def __call__(self, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - the UNet's
        return self._network(*given, **named)


class CompiledUNet(PatchedUNet):
    """The same, its layers compiled by torch at their first run."""

    @override
    def __call__(self, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        from torch import _dynamo as dynamo

        try:
            # torch compiles a layer's code eight times before it gives up; ours comes in more widths than that
            with dynamo.config.patch(cache_size_limit=KINDS_OF_LAYERS):
                return super().__call__(*given, **named)
        except dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise DependencyError(f"torch.compile failed: {reason}. Turn compile off in Load Model.") from error


class VaeCodec:
    """ComfyUI's VAE as the library's `Codec`.

    One image at a time: of more, ComfyUI takes as many at once as free memory holds, and sums may end in other digits
    for another number. Looks for a cancel before each.
    """

    def __init__(self, vae: comfy.sd.VAE) -> None:
        self.vae = vae

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return _one_by_one(self.vae.encode, images.movedim(1, -1).add(1).div(2))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return _one_by_one(self.vae.decode, latents).movedim(-1, 1).mul(2).sub(1)


def _one_by_one(work: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    made = []
    for one in batch.split(1):
        mm.throw_exception_if_processing_interrupted()
        made.append(work(one))
    return torch.cat(made)


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
    """Pass `items` on, moving the node's progress bar and looking for a cancel at each.

    Raises:
        RoomError: memory ran out, see `with_room`.
    """
    bar, made = comfy.utils.ProgressBar(total), iter(items)
    for done in count(1):
        item = with_room(lambda: next(made, END))
        if item is END:
            return
        mm.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)
        yield item


def with_room(work: Callable[[], T]) -> T:
    """What `work` gives.

    Raises:
        RoomError: memory ran out; what ComfyUI had loaded was put away first, so that the next prompt begins afresh.
    """
    try:
        return work()
    except (RoomError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = room_error(error)
    # only here does the error no longer hold what the failed attempt had on the device
    mm.unload_all_models()
    mm.soft_empty_cache()
    raise reason


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
