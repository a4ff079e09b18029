"""A loaded model as ComfyUI manages it, and the adapters that the sampler calls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import comfy.model_management as mm
import comfy.sd
import torch
from comfy.cli_args import args

from ..latentsync.models.constants import LATENT_STRIDE, WINDOW_FRAMES
from ..latentsync.models.layers import PositionalEncoding
from ..latentsync.oom import BatchLimit
from ..latentsync.sampling.sampler import CFG_BATCH
from ..latentsync.weights.catalog import MODELS, ModelSpec
from .progress import is_oom, with_oom_message

if TYPE_CHECKING:
    from ..latentsync.faces.face_track import FaceTrack
    from ..latentsync.models.protocols import AudioKV
    from ..latentsync.models.unet import UNet
    from ..latentsync.output.takes import TakeStore
    from ..latentsync.pipeline import ConditioningStores, LipSyncPipeline

log = logging.getLogger("latentsync")

VAE_IMAGES = 2  # images that a GPU encodes or decodes at once
# channels per latent pixel of a clip in VRAM at once: an upper bound of what benchmarks/footprint.py counts
CLIP_CHANNELS = 8200


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model as ComfyUI manages it.

    spec: version and resolution.
    unet, whisper: ComfyUI's patchers, which decide where the weights are.
    vae: ComfyUI's VAE behind the library's interface.
    dtype: dtype in which the UNet computes.
    files: paths of the loaded weights.
    stores: encoded face crops of each face track, see `LipSyncPipeline`.
    takes: the takes of each face track, and the setup of these takes.
    """

    spec: ModelSpec
    unet: Any
    whisper: Any
    vae: ComfyVAE
    dtype: torch.dtype
    files: tuple[Path, ...]
    stores: ConditioningStores = field(default_factory=WeakKeyDictionary)
    takes: WeakKeyDictionary[FaceTrack, tuple[Hashable, TakeStore]] = field(default_factory=WeakKeyDictionary)

    @property
    def device(self) -> torch.device:
        return self.unet.load_device

    def pipeline(self, batch_limit: BatchLimit | None = None) -> LipSyncPipeline:
        """The library's pipeline with networks that ComfyUI manages.

        ComfyUI moves each network to its device before use.
        """
        from ..latentsync.pipeline import LipSyncPipeline
        from .model_folders import model_folders, temp_folder

        return LipSyncPipeline(
            unet=ComfyUNet(self, batch_limit or BatchLimit(CFG_BATCH, "the UNet", is_oom)),
            whisper=ComfyWhisper(self.whisper),
            vae=self.vae,
            spec=self.spec,
            device=self.device,
            dtype=self.dtype,
            files=self.files,
            folders=model_folders(),
            batch_limit=batch_limit,
            temp_dir=temp_folder(),
            stores=self.stores,
        )

    def batch_limit(self) -> BatchLimit:
        """The largest batch of the UNet, in clips. Each out-of-memory error halves the limit.

        The limit is one window with guidance at 512 pixels, or the same number of pixels in smaller windows. Such a
        batch is large enough for a GPU. The limit is lower if the device has too little VRAM for this batch and the
        weights. ComfyUI unloads other models. On a CPU, the limit is one window. With ComfyUI's --deterministic, the
        limit is one clip. The limit does not depend on the free VRAM, because the batch size changes the order of sums,
        and the free VRAM differs from run to run.
        """
        if self.device.type == "cpu":
            return BatchLimit(CFG_BATCH, "the UNet", is_oom)
        if args.deterministic:
            return BatchLimit(1, "the UNet", is_oom)
        enough = max(1, int(CFG_BATCH * (MODELS["1.6"].resolution / self.spec.resolution) ** 2))
        total: Any = mm.get_total_memory(self.device)
        fitting = int((total - mm.extra_reserved_memory() - self.unet.model_size()) // self._clip_bytes)
        if fitting < 1:
            log.warning(
                "LatentSync %s in %s may not fit in the %.1f GB of %s. The run may be slow.",
                self.spec.version,
                self.dtype,
                total / 2**30,
                self.device,
            )
        return BatchLimit(min(enough, max(1, fitting)), "the UNet", is_oom)

    def take_store(self, face_track: FaceTrack, setup: Hashable) -> TakeStore:
        """The takes of a face track with this setup.

        The function drops the takes of another setup, because they need RAM.
        """
        from ..latentsync.output.takes import TakeStore

        kept = self.takes.get(face_track)
        if kept is None or kept[0] != setup:
            kept = self.takes[face_track] = setup, TakeStore()
        return kept[1]

    def load(self, clips: int) -> None:
        """Load the UNet to its device, and free VRAM for the activations of a number of clips."""
        mm.load_models_gpu([self.unet], memory_required=clips * self._clip_bytes)
        for module in self.unet.model.modules():
            if isinstance(module, PositionalEncoding):
                module.to(self.device)  # a partial load leaves modules without weights on the CPU

    @property
    def _clip_bytes(self) -> int:
        latent = self.spec.resolution // LATENT_STRIDE
        return WINDOW_FRAMES * latent * latent * CLIP_CHANNELS * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"LoadedModel({self.spec.version}, {self.spec.resolution} px, {self.dtype} on {self.device})"


class ComfyUNet:
    """ComfyUI's patcher of the UNet as the library's `Denoiser`.

    Between two windows, ComfyUI may move the UNet off the device to load the VAE. Each window therefore loads the UNet
    again.
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
    """ComfyUI's patcher of the Whisper encoder as the library's `AudioEncoder`.

    Each call loads the encoder to its device.
    """

    def __init__(self, patcher: Any) -> None:  # noqa: ANN401 - ComfyUI's
        self._patcher = patcher

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        # in full: Whisper's own layers cannot take a weight from another device
        with_oom_message(lambda: mm.load_models_gpu([self._patcher], force_full_load=True))
        return self._patcher.model.parameters()

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        return self._patcher.model(mel)


class ComfyVAE:
    """ComfyUI's VAE as the library's `VAE`.

    All images of a call share one load of the weights and one copy to the device. Before each batch, the VAE checks
    whether the user canceled the run. The batch size does not depend on the free VRAM, because another batch size
    changes the last digits of the result.
    """

    def __init__(self, vae: comfy.sd.VAE) -> None:
        self.vae: Any = vae

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        images = images.add(1).div(2)
        made = self._run(self.vae.first_stage_model.encode, self.vae.process_input(images), self.vae.memory_used_encode)
        if made is None:
            return _one_by_one(self.vae.encode, images.movedim(1, -1))
        return made.to(self.vae.output_device)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """See the protocol. The images stay on the device, and the call returns before they are finished."""

        def decode(latents: torch.Tensor) -> torch.Tensor:
            images = self.vae.first_stage_model.decode(latents).to(self.vae.vae_output_dtype())
            return self.vae.process_output(images)  # needs VRAM in older ComfyUI versions

        images = self._run(decode, latents, self.vae.memory_used_decode)
        if images is None:
            images = _one_by_one(self.vae.decode, latents).movedim(-1, 1)
        return images.mul_(2).sub_(1)

    def decode_small(self, latents: torch.Tensor) -> torch.Tensor:
        """Like `decode`, but without the image that fills the batch, so the last digits differ. For a preview."""
        return _one_by_one(self.vae.decode, latents).movedim(-1, 1).mul(2).sub(1)

    def _run(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        inputs: torch.Tensor,
        memory_used: Callable[[torch.Size, torch.dtype], float],
    ) -> torch.Tensor | None:
        """The network's outputs, or None if VRAM runs out.

        ComfyUI's own call then needs less VRAM, because it can use tiles.
        """
        vae = self.vae
        batch_size = 1 if vae.device.type == "cpu" else VAE_IMAGES
        try:
            memory = int(batch_size * memory_used(inputs.shape, vae.vae_dtype))
            mm.load_models_gpu([vae.patcher], memory_required=memory)
            outputs: list[torch.Tensor] = []
            for batch in inputs.to(vae.device, vae.vae_dtype).split(batch_size):
                mm.throw_exception_if_processing_interrupted()
                # the last one is filled up: other numbers of images may run in other kernels
                filled = torch.cat([batch, batch[-1:].expand(batch_size - len(batch), -1, -1, -1)])
                outputs.append(network(filled)[: len(batch)])
            return torch.cat(outputs).to(vae.vae_output_dtype())
        except (RuntimeError, MemoryError) as error:
            if not is_oom(error):
                raise
        log.warning("Out of memory in the VAE. LatentSync continues with one image at a time.")
        mm.soft_empty_cache()
        return None


def _one_by_one(work: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    results = []
    for image in batch.split(1):
        mm.throw_exception_if_processing_interrupted()
        results.append(work(image))
    return torch.cat(results)
