"""A loaded model as ComfyUI manages it, and the adapters that the sampler calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import comfy.sd
import torch
from comfy.cli_args import args

from ..latentsync.models.constants import LATENT_STRIDE, WINDOW_FRAMES
from ..latentsync.oom import BatchLimit
from ..latentsync.sampling.sampler import PASSES, clip_limit
from ..latentsync.weights.catalog import MODELS, ModelSpec
from .progress import with_oom_message

if TYPE_CHECKING:
    from ..latentsync.models.protocols import AudioKV
    from ..latentsync.models.unet import UNet
    from ..latentsync.pipeline import LipSyncPipeline


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

    def pipeline(self, batch_limit: BatchLimit | None = None) -> LipSyncPipeline:
        """The library's pipeline on networks that ComfyUI manages; each comes to its device when it is used."""
        from ..latentsync.pipeline import LipSyncPipeline
        from .model_folders import model_folders, temp_folder

        return LipSyncPipeline(
            unet=ComfyUNet(self, batch_limit or clip_limit(PASSES)),
            whisper=ComfyWhisper(self.whisper),
            vae=self.vae,
            spec=self.spec,
            device=self.device,
            dtype=self.dtype,
            files=self.files,
            folders=model_folders(),
            batch_limit=batch_limit,
            temp_dir=temp_folder(),
        )

    def batch_limit(self) -> BatchLimit:
        """Room for as many clips in the UNet as the free memory holds, once its weights are where they are to be.

        No more than those of one guided window of 512 pixels, which leave a card nothing to wait for, or, on the
        processor, of any one window. Where ComfyUI was started with --deterministic, one: another number at once is
        summed in another order, and free memory is another each time.
        """
        if self.device.type == "cpu":
            return clip_limit(PASSES)
        if args.deterministic:
            return clip_limit(1)
        self.load(PASSES)
        enough = max(1, int(PASSES * (MODELS["1.6"].resolution / self.spec.resolution) ** 2))
        to_come = self.unet.model_size() - self.unet.loaded_size()
        free = mm.get_free_memory(self.device) - mm.extra_reserved_memory() - to_come
        return clip_limit(min(enough, max(1, int(free // self._clip_bytes))))

    def load(self, clips: int) -> None:
        """Bring the UNet to its device, and make room there for the activations of so many clips."""
        with_oom_message(lambda: mm.load_models_gpu([self.unet], memory_required=clips * self._clip_bytes))

    @property
    def _clip_bytes(self) -> int:
        latent = self.spec.resolution // LATENT_STRIDE
        return WINDOW_FRAMES * latent * latent * CLIP_CHANNELS * self.dtype.itemsize

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
        self._model.load(min(self._room.max_batch, PASSES * len(audio)))
        return self._network.precompute_audio_kv(audio)

    def __call__(self, *given: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - the UNet's
        return self._network(*given, **named)


class ComfyWhisper:
    """ComfyUI's patcher of Whisper's encoder as the library's `AudioEncoder`: each call brings it to its device."""

    def __init__(self, patcher: Any) -> None:  # noqa: ANN401 - ComfyUI's
        self._patcher = patcher

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        with_oom_message(lambda: mm.load_models_gpu([self._patcher]))
        return self._patcher.model.parameters()

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        return self._patcher.model(mel)


class ComfyVAE:
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
