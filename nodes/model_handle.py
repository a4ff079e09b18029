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
from ..latentsync.sampling.sampler import CFG_BATCH
from ..latentsync.weights.catalog import MODELS, ModelSpec
from .progress import with_oom_message

if TYPE_CHECKING:
    from ..latentsync.models.protocols import AudioKV
    from ..latentsync.models.unet import UNet
    from ..latentsync.pipeline import LipSyncPipeline

CLIP_CHANNELS = (
    8200  # per latent pixel of a clip in VRAM at once: an upper bound of what benchmarks/footprint.py counts
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model as ComfyUI manages it.

    spec: version and resolution.
    unet, whisper: ComfyUI's patchers, which decide where the weights are.
    vae: ComfyUI's VAE behind the library's interface.
    dtype: in which the UNet computes.
    files: from which the weights were loaded.
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
        """The library's pipeline with networks that ComfyUI manages. Each moves to its device when it is used."""
        from ..latentsync.pipeline import LipSyncPipeline
        from .model_folders import model_folders, temp_folder

        return LipSyncPipeline(
            unet=ComfyUNet(self, batch_limit or BatchLimit(CFG_BATCH, "the UNet")),
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
        """The largest batch of the UNet: as many clips as the free VRAM holds beside the weights.

        At most one window with guidance at 512 pixels, or as many pixels of smaller windows, which keeps a GPU busy.
        On a CPU, one window. With ComfyUI's --deterministic, one clip: the batch size changes the order of sums, and
        the free VRAM differs from run to run.
        """
        if self.device.type == "cpu":
            return BatchLimit(CFG_BATCH, "the UNet")
        if args.deterministic:
            return BatchLimit(1, "the UNet")
        self.load(CFG_BATCH)
        enough = max(1, int(CFG_BATCH * (MODELS["1.6"].resolution / self.spec.resolution) ** 2))
        to_come = self.unet.model_size() - self.unet.loaded_size()
        available: Any = mm.get_free_memory(self.device)
        free = available - mm.extra_reserved_memory() - to_come
        return BatchLimit(min(enough, max(1, int(free // self._clip_bytes))), "the UNet")

    def load(self, clips: int) -> None:
        """Load the UNet to its device, and free VRAM for the activations of a number of clips."""
        with_oom_message(lambda: mm.load_models_gpu([self.unet], memory_required=clips * self._clip_bytes))

    @property
    def _clip_bytes(self) -> int:
        latent = self.spec.resolution // LATENT_STRIDE
        return WINDOW_FRAMES * latent * latent * CLIP_CHANNELS * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"LoadedModel({self.spec.version}, {self.spec.resolution} px, {self.dtype} on {self.device})"


class ComfyUNet:
    """ComfyUI's patcher of the UNet as the library's `Denoiser`.

    Between two windows, ComfyUI may move the UNet off the device to load the VAE. So each window loads it again.
    """

    def __init__(self, model: LoadedModel, batch_limit: BatchLimit) -> None:
        self._model, self._batch_limit = model, batch_limit
        self._network: UNet = model.unet.model

    def precompute_audio_kv(self, audio: torch.Tensor) -> AudioKV:
        self._model.load(min(self._batch_limit.max_batch, CFG_BATCH * len(audio)))
        return self._network.precompute_audio_kv(audio)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - the UNet's
        return self._network(*args, **kwargs)


class ComfyWhisper:
    """ComfyUI's patcher of the Whisper encoder as the library's `AudioEncoder`. Each call loads it to its device."""

    def __init__(self, patcher: Any) -> None:  # noqa: ANN401 - ComfyUI's
        self._patcher = patcher

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        with_oom_message(lambda: mm.load_models_gpu([self._patcher]))
        return self._patcher.model.parameters()

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        return self._patcher.model(mel)


class ComfyVAE:
    """ComfyUI's VAE as the library's `VAE`.

    It takes one image at a time and checks for a cancel before each. ComfyUI would choose the batch size by the free
    VRAM, which changes the last digits of the result.
    """

    def __init__(self, vae: comfy.sd.VAE) -> None:
        self.vae = vae

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return _one_by_one(self.vae.encode, images.movedim(1, -1).add(1).div(2))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return _one_by_one(self.vae.decode, latents).movedim(-1, 1).mul(2).sub(1)


def _one_by_one(work: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    results = []
    for image in batch.split(1):
        mm.throw_exception_if_processing_interrupted()
        results.append(work(image))
    return torch.cat(results)
