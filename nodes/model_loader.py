"""Load weights into ComfyUI's model patchers: choose files, precision and devices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from re import fullmatch
from typing import Any

import comfy.diffusers_convert
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.sd
import folder_paths
import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention

from ..latentsync.errors import UsageError, WeightsError
from ..latentsync.models.constants import LATENT_CHANNELS, LATENT_STRIDE
from ..latentsync.models.layers import AttentionFn, attention
from ..latentsync.weights import loader, locate, metadata
from ..latentsync.weights.catalog import MODELS, Version
from ..latentsync.weights.download import download_files
from ..latentsync.weights.fp8 import PRECISIONS
from .io_types import expect_type
from .model_folders import model_folders
from .model_handle import ComfyVAE, LoadedModel
from .progress import run_with_progress

log = logging.getLogger("latentsync")


COMPUTED = [torch.float16, torch.bfloat16, torch.float32]  # dtypes that the UNet can compute in


UNET_PARAMETERS = 1_267_900_000


MINIATURE_WARNING = (
    "%s is the small model of the demo, which was trained on one face. For other faces, install the official files "
    "(see the README)."
)
SYNTHETIC_WARNING = (
    "%s has tiny untrained weights for tests, so the mouth will be noise. For speech, install the official files (see "
    "the README)."
)


def load_model(
    version: Version | None,
    unet: str | None,
    precision: str,
    *,
    download_missing: bool,
    vae: comfy.sd.VAE | None,
) -> LoadedModel:
    """Load a model's files into ComfyUI's patchers.

    Args:
        version: None takes the best version on disk that fits the device.
        unet: a name of `model_folders.unet_files()` or `published_names()`. None takes the official file.
        precision: "auto", or a key of PRECISIONS.
        download_missing: download missing files first.
        vae: the connected VAE, which replaces the VAE file.
    """
    device = mm.get_torch_device()
    given_vae = ComfyVAE(checked_vae(vae)) if vae is not None else None
    version, chosen = _choice(version, unet)
    files = _files(version, chosen, device, download_missing=download_missing, needs_vae=vae is None)
    stored, computed = _dtypes(precision, device)
    if not mm.supports_cast(device, stored):
        name = mm.get_torch_device_name(device)
        raise UsageError(
            f'"precision" is {precision}, but {name} does not support it. Set "precision" to auto or fp16.'
        )
    checkpoint = loader.read(files.unet)
    kind = checkpoint.metadata.get(metadata.WEIGHTS)
    if kind == metadata.SYNTHETIC:
        log.warning(SYNTHETIC_WARNING, files.unet.name)
    if kind == metadata.MINIATURE:
        log.warning(MINIATURE_WARNING, files.unet.name)
    operations: Any = comfy.ops.manual_cast
    network = loader.load_unet(checkpoint, operations, stored, _attention(device), _fine(stored, computed))
    return LoadedModel(
        spec=files.spec,
        unet=_patcher(network, device, mm.unet_offload_device()),
        whisper=_patcher(loader.load_whisper(files.whisper), device, mm.text_encoder_offload_device()),
        vae=given_vae or ComfyVAE(_load_vae(files.vae)),
        dtype=computed,
        files=(files.unet, files.whisper) if vae is not None else (files.unet, files.whisper, files.vae),
    )


def checked_vae(vae: comfy.sd.VAE) -> comfy.sd.VAE:
    """Return the connected VAE. Raises WeightsError if the VAE cannot be a VAE of Stable Diffusion 1.x.

    The VAE of SDXL has the same layout, so this check cannot recognize it.
    """
    expect_type("vae", vae, comfy.sd.VAE, "Load VAE")
    channels, stride, dimensions = vae.latent_channels, vae.downscale_ratio, vae.latent_dim
    if (channels, stride, dimensions) != (LATENT_CHANNELS, LATENT_STRIDE, 2):
        shown = stride if isinstance(stride, int) else "other"
        raise WeightsError(
            f'"vae" is not a VAE of Stable Diffusion 1.x. This VAE has {channels} latent channels, a stride of {shown} '
            f"and {dimensions} dimensions. LatentSync needs {LATENT_CHANNELS} channels, a stride of {LATENT_STRIDE} "
            "and 2 dimensions. Load sd-vae-ft-mse, or disconnect the input."
        )
    return vae


def published_names() -> dict[str, Version]:
    """Paths of the official UNets in `models/latentsync`, and their versions."""
    return {spec.unet.path.partition("/")[2]: spec.version for spec in MODELS.values()}


def _choice(version: Version | None, unet: str | None) -> tuple[Version | None, Path | None]:
    """The version and the file of the inputs `version` and `unet`."""
    if unet is None:
        return version, None
    path = folder_paths.get_full_path("latentsync", unet)
    if path is not None:
        return version, Path(path)
    published = published_names().get(unet.replace("\\", "/"))
    if published is None:
        raise WeightsError(f'"unet" is {unet}, but models/latentsync has no such file. Choose another file, or auto.')
    if version not in (None, published):
        raise UsageError(
            f'{unet} is version {published}, but "version" is {version}. Set "version" to {published}, '
            'or "unet" to auto.'
        )
    return published, None


def _files(
    version: Version | None, unet: Path | None, device: torch.device, *, download_missing: bool, needs_vae: bool
) -> locate.ModelFiles:
    folders, memory = model_folders(), locate.device_memory(device)
    if download_missing:
        chosen = version or locate.default_version(folders, memory)
        files = locate.required_files(chosen, unet, needs_vae=needs_vae)
        run_with_progress(download_files([file for file in files if not locate.exists(file, folders)], folders))
    return locate.locate(folders, version, unet, memory_bytes=memory, needs_vae=needs_vae)


def _dtypes(precision: str, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """The dtype of the UNet's stored weights, and the dtype in which it computes."""
    stored = PRECISIONS.get(precision) or mm.unet_dtype(device, UNET_PARAMETERS, COMPUTED)
    return stored, mm.unet_manual_cast(stored, device, COMPUTED) or stored


def _attention(device: torch.device) -> AttentionFn:
    """ComfyUI's attention. On a CPU, torch's attention, because ComfyUI's attention takes three times as long there.

    SageAttention has no kernel for heads of 160 channels, and quantizes the 16 tokens of temporal attention.
    """
    if device.type == "cpu":
        return attention
    return attention_pytorch if mm.sage_attention_enabled() else optimized_attention


def _fine(stored: torch.dtype, computed: torch.dtype) -> torch.dtype:
    """The dtype of norms, biases and tables. Only matrices use fp8."""
    return computed if stored.itemsize == 1 else stored


def managed(network: torch.nn.Module) -> Callable[[], torch.device]:
    """A network of a segmenter under ComfyUI's memory management, see `faces.clip_segmenter.Place`."""
    device: torch.device = mm.get_torch_device()
    # ComfyUI sets attributes of a model that are read-only in networks of transformers
    patcher = _patcher(torch.nn.ModuleList([network]), device, mm.unet_offload_device())

    @cache  # once: no other model runs in the node, and each load copies all weights with dynamic VRAM
    def load() -> torch.device:
        # in full: the layers of transformers cannot take a weight from another device
        mm.load_models_gpu([patcher], force_full_load=True)
        return device

    return load


def _patcher(network: torch.nn.Module, device: torch.device, offload: torch.device) -> comfy.model_patcher.ModelPatcher:
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(network, load_device=device, offload_device=offload)


def _load_vae(path: Path) -> comfy.sd.VAE:
    """Load a VAE file into ComfyUI's VAE. All keys must match, although ComfyUI itself only logs missing keys."""
    tensors = dict(loader.read(path).tensors)
    if any(".resnets." in key for key in tensors):
        tensors = comfy.diffusers_convert.convert_vae_state_dict(tensors)
    if "encoder.conv_in.weight" not in tensors:
        raise _not_a_vae(path, "encoder.conv_in.weight is missing")
    vae: Any = comfy.sd.VAE(sd=tensors, config=_vae_config(tensors))
    expected = set(vae.first_stage_model.state_dict())
    if expected != set(tensors):
        missing, unknown = len(expected - set(tensors)), len(set(tensors) - expected)
        raise _not_a_vae(path, f"{missing} weights are missing and {unknown} are unknown")
    return vae


def _vae_config(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The config of a Stable Diffusion 1.x VAE, read from the shapes of its weights (LDM names)."""
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
    return WeightsError(f"{path} is not a VAE of Stable Diffusion 1.x: {why}. Use sd-vae-ft-mse (see the README).")
