"""A loaded model as ComfyUI manages it, and the adapters that the sampler calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import comfy.sd
import comfy.utils
import torch
from comfy.cli_args import args

from ..latentsync.models.constants import LATENT_STRIDE, WINDOW_FRAMES
from ..latentsync.oom import BatchLimit
from ..latentsync.sampling.sampler import CFG_BATCH
from ..latentsync.weights.catalog import MODELS, ModelSpec
from .progress import with_oom_message

if TYPE_CHECKING:
    from ..latentsync.models.protocols import AudioKV, Denoiser
    from ..latentsync.models.unet import UNet
    from ..latentsync.models.whisper import WhisperEncoder


CLIP_CHANNELS = 8200  # held at once for each latent pixel of a clip: more than benchmarks/footprint.py counts of any


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model as ComfyUI manages it.

    spec: version and resolution.
    unet, whisper: ComfyUI's patchers; they decide where the weights are.
    vae: ComfyUI's VAE behind the library's interface.
    dtype: what the UNet computes in.
    files: that were read.
    """

    spec: ModelSpec
    unet: Any
    whisper: Any
    vae: ComfyVAE
    dtype: torch.dtype
    files: tuple[Path, ...]

    @property
    def device(self) -> torch.device:
        return self.unet.load_device

    def denoiser(self, room: BatchLimit) -> Denoiser:
        """The UNet, for as many clips at once as there is room for; each batch of windows brings it to its device."""
        return ComfyUNet(self, room)

    def room(self) -> BatchLimit:
        """Room for as many clips in the UNet as the free memory holds, once its weights are where they are to be.

        No more than those of one guided window of 512 pixels, which leave a card nothing to wait for, or, on the
        processor, of any one window. Where ComfyUI was started with --deterministic, one: another number at once is
        summed in another order, and free memory is another each time.
        """
        if self.device.type == "cpu":
            return BatchLimit(CFG_BATCH, "the UNet")
        if args.deterministic:
            return BatchLimit(1, "the UNet")
        self.load(CFG_BATCH)
        enough = max(1, int(CFG_BATCH * (MODELS["1.6"].resolution / self.spec.resolution) ** 2))
        to_come = self.unet.model_size() - self.unet.loaded_size()
        free = mm.get_free_memory(self.device) - mm.extra_reserved_memory() - to_come
        return BatchLimit(min(enough, max(1, int(free // self._clip_bytes))), "the UNet")

    def load(self, clips: int) -> None:
        """Bring the UNet to its device, and make room there for the activations of so many clips."""
        with_oom_message(lambda: mm.load_models_gpu([self.unet], memory_required=clips * self._clip_bytes))

    @property
    def _clip_bytes(self) -> int:
        latent = self.spec.resolution // LATENT_STRIDE
        return WINDOW_FRAMES * latent * latent * CLIP_CHANNELS * self.dtype.itemsize

    def encoder(self) -> WhisperEncoder:
        """Whisper's encoder, brought to its device."""
        with_oom_message(lambda: mm.load_models_gpu([self.whisper]))
        return self.whisper.model

    def __repr__(self) -> str:
        return f"LoadedModel({self.spec.version}, {self.spec.resolution} px, {self.dtype} on {self.device})"


class ComfyUNet:
    """ComfyUI's patcher of the UNet as the library's `Denoiser`.

    Between two windows the VAE may have taken its place on the device, so that each begins with its return.
    """

    def __init__(self, model: LoadedModel, room: BatchLimit) -> None:
        self._model, self._room = model, room
        self._network: UNet = model.unet.model

    def precompute_audio_kv(self, audio: torch.Tensor) -> AudioKV:
        self._model.load(min(self._room.max_batch, CFG_BATCH * len(audio)))
        return self._network.precompute_audio_kv(audio)

    def __call__(self, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - the UNet's
        return self._network(*given, **named)


class ComfyVAE:
    """ComfyUI's VAE as the library's `VAE`.

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
