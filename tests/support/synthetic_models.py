"""Write a models folder of tiny untrained weights, under the names of the official files."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from latentsync.fileio import atomic_write
from latentsync.weights import loader, metadata, random_init
from latentsync.weights.catalog import MODELS, SYNCNET, VAE, WHISPER, Version
from latentsync.weights.random_init import WHISPER_DIMS
from tests.support.tiny_networks import syncnet_weights


def write_models(folder: Path, version: Version = "1.5", resolution: int | None = None) -> None:
    """Write all weights that a version needs. Existing files are replaced.

    Args:
        folder: the models folder.
        version: of the UNet.
        resolution: of the face crops; by default the version's own.
    """
    spec = MODELS[version]
    header = {
        **random_init.METADATA,
        metadata.VERSION: version,
        metadata.RESOLUTION: str(resolution or spec.resolution),
    }
    unet, vae, whisper = folder / spec.unet.path, folder / VAE.path, folder / WHISPER.path
    for path in (unet, vae, whisper):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(unet.with_suffix(".safetensors"), lambda path: save_file(random_init.unet_state(), path, header))
    atomic_write(vae, lambda path: save_file(random_init.vae_state(), path, random_init.METADATA))
    atomic_write(whisper, write_whisper)


def write_syncnet(folder: Path) -> Path:
    """Write untrained weights of SyncNet, full size, into a models folder."""
    path = folder / SYNCNET.path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**random_init.METADATA, "state_dict": syncnet_weights("test.")}, path)
    return path


def write_whisper(path: Path) -> None:
    """In the official layout: float16, and with the decoder, though no test runs it."""
    decoder = loader.meta_shapes(whisper_decoder)
    state = random_init.whisper_state() | {key: torch.zeros(shape) for key, shape in decoder.items()}
    content = {
        **random_init.METADATA,
        "dims": WHISPER_DIMS,
        "model_state_dict": {key: tensor.half() for key, tensor in state.items()},
    }
    torch.save(content, path)


def whisper_decoder() -> nn.Module:
    from whisper.model import TextDecoder

    sizes = (WHISPER_DIMS[f"n_{name}"] for name in ("vocab", "text_ctx", "text_state", "text_head", "text_layer"))
    return nn.ModuleDict({"decoder": TextDecoder(*sizes)})
