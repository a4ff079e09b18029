"""What only ComfyUI can say: devices and dtypes, loaded models, model folders, progress and cancel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.diffusers_convert
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import folder_paths
import torch

from ..latentsync import checkpoint, hub
from ..latentsync.errors import UsageError, WeightsError
from ..latentsync.spec import LATENT_CHANNELS, LATENT_STRIDE, WINDOW_FRAMES, ModelSpec, Version

if TYPE_CHECKING:
    from ..latentsync.models.whisper import WhisperEncoder
    from ..latentsync.sampling import Denoiser

T = TypeVar("T")

log = logging.getLogger("latentsync")

UNET_SUFFIXES = frozenset({".pt", ".safetensors"})
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
UNET_PARAMETERS = 1_267_900_000
WIDEST_CHANNELS = 3 * 2560  # of activations held at once per latent pixel: GEGLU of the first level, in and out

SYNTHETIC_WARNING = (
    "%s holds tiny untrained weights, made to try the machinery: the mouth will be noise. "
    "Put the real files in place (see the README) for speech."
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model as ComfyUI manages it.

    spec: version and resolution.
    unet, whisper: ComfyUI's patchers; they decide where the weights are.
    codec: ComfyUI's VAE behind the library's interface.
    dtype: what the UNet computes in.
    """

    spec: ModelSpec
    unet: Any
    whisper: Any
    codec: VaeCodec
    dtype: torch.dtype

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
    """Every folder that ComfyUI knows of each kind."""
    return {kind: [Path(folder) for folder in folder_paths.get_folder_paths(kind)] for kind in hub.KINDS}


def temp_folder() -> Path:
    """ComfyUI's folder for temporary files."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def unet_files() -> list[str]:
    """Names of the UNet files in `models/latentsync`, for a combo."""
    return [name for name in folder_paths.get_filename_list("latentsync") if not name.startswith("whisper")]


def load_model(version: Version | None, unet: str | None, precision: str) -> LoadedModel:
    """Load a model's files into ComfyUI's patchers.

    Args:
        version: None takes 1.6 if it is there, else 1.5.
        unet: a name of `unet_files()`; None takes the version's own.
        precision: "auto", or a key of PRECISIONS.
    """
    if unet is not None and version is None:
        raise UsageError(f"{unet}: say which version this file is; 'auto' cannot tell 1.5 from 1.6 weights")
    chosen = Path(folder_paths.get_full_path_or_raise("latentsync", unet)) if unet is not None else None
    files = hub.locate(model_folders(), version, chosen)
    device = mm.get_torch_device()
    stored, computed = _dtypes(precision, device)
    read = checkpoint.read(files.unet)
    if read.metadata.get("latentsync_weights") == "synthetic":
        log.warning(SYNTHETIC_WARNING, files.unet.name)
    network = checkpoint.load_unet(read, ops=comfy.ops.manual_cast, dtype=stored)
    return LoadedModel(
        spec=files.spec,
        unet=_patcher(network, device, mm.unet_offload_device()),
        whisper=_patcher(checkpoint.load_whisper(files.whisper), device, mm.text_encoder_offload_device()),
        codec=VaeCodec(_load_vae(files.vae)),
        dtype=computed,
    )


def tracked(items: Iterable[T], total: int, preview: Callable[[T], Any] | None = None) -> Iterator[T]:
    """Pass `items` on, moving the node's progress bar and looking for a cancel at each.

    Args:
        preview: makes a picture (PIL) to show in the node, or None for none.
    """
    bar = comfy.utils.ProgressBar(total)
    for done, item in enumerate(items, start=1):
        mm.throw_exception_if_processing_interrupted()
        picture = preview(item) if preview else None
        bar.update_absolute(done, total, ("JPEG", picture, 512) if picture else None)
        yield item


def _dtypes(precision: str, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """Stored and computed dtype of the UNet."""
    supported = list(PRECISIONS.values())
    stored = PRECISIONS.get(precision) or mm.unet_dtype(device, UNET_PARAMETERS, supported)
    return stored, mm.unet_manual_cast(stored, device, supported) or stored


def _patcher(network: torch.nn.Module, device: torch.device, offload: torch.device) -> comfy.model_patcher.ModelPatcher:
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(network, load_device=device, offload_device=offload)


def _load_vae(path: Path) -> comfy.sd.VAE:
    """ComfyUI's VAE, refused unless every key of the file and of the network met: core only logs what is missing."""
    tensors = dict(checkpoint.read(path).tensors)
    if any(".resnets." in key for key in tensors):
        tensors = comfy.diffusers_convert.convert_vae_state_dict(tensors)
    if "encoder.conv_in.weight" not in tensors:
        raise _not_a_vae(path, f"it has no weight named encoder.conv_in.weight among its {len(tensors)}")
    vae = comfy.sd.VAE(sd=tensors, config=_vae_config(tensors))
    expected = set(vae.first_stage_model.state_dict())
    if expected != set(tensors):
        missing, unknown = len(expected - set(tensors)), len(set(tensors) - expected)
        raise _not_a_vae(path, f"{missing} of its weights are missing and {unknown} are unknown")
    return vae


def _vae_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The widths of a Stable Diffusion 1.x VAE, read from its shapes (LDM naming)."""
    width = tensors["encoder.conv_in.weight"].shape[0]
    levels = sorted(key for key in tensors if fullmatch(r"encoder\.down\.\d\.block\.0\.conv2\.weight", key))
    blocks = [key for key in tensors if fullmatch(r"encoder\.down\.0\.block\.\d\.conv2\.weight", key)]
    network = {
        "double_z": True,
        "z_channels": LATENT_CHANNELS,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": [tensors[key].shape[0] // width for key in levels],
        "num_res_blocks": len(blocks),
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"params": {"ddconfig": network, "embed_dim": LATENT_CHANNELS}}


def _not_a_vae(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path}: not a Stable Diffusion 1.x VAE: {why}. Use sd-vae-ft-mse (see the README).")
