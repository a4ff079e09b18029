"""Tiny untrained weights in the official layout: to run every stage where the real ones are not at hand."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from . import checkpoint, marks
from .checkpoint import Checkpoint, Shapes
from .models.constants import AUDIO_WIDTH
from .models.unet import UNet, UNetConfig
from .models.vae import DiffusersVAE, autoencoder_of
from .models.whisper import TINY, WhisperEncoder
from .weights.catalog import MODELS, VAE, WHISPER, Version

UNET = UNetConfig(channels=(32, 64, 64, 64))
VAE_CHANNELS = (32, 32, 64, 64)
WHISPER_DIMS = {
    **TINY,
    "n_vocab": 51865,
    "n_text_ctx": 448,
    "n_text_state": AUDIO_WIDTH,
    "n_text_head": 6,
    "n_text_layer": 4,
}
MARK = {marks.WEIGHTS: marks.SYNTHETIC}
BUFFERS = ("pos_encoder.pe", "encoder.positional_embedding")  # sinusoidal tables, not random


def unet() -> UNet:
    """A UNet of the official layout, but narrow: in and out as `models.unet.UNet`, float32."""
    return checkpoint.load_unet(_held("unet", _unet_weights()))


def whisper() -> WhisperEncoder:
    """An encoder of Whisper tiny's own size: in and out as `models.whisper.WhisperEncoder`, float32."""
    weights = _filled(checkpoint.meta_shapes(_whisper_encoder), _whisper_encoder)
    return checkpoint.load_whisper(_held("whisper", weights, {"dims": WHISPER_DIMS}))


def vae() -> DiffusersVAE:
    """A VAE of Stable Diffusion 1.x's layout, but narrow: 4 latent channels, 8 pixels per latent each way, float32."""
    return checkpoint.load_vae(_held("vae", _vae_weights()))


def write_models(folder: Path, version: Version = "1.5") -> None:
    """Writes all weights that a version needs, where the official ones would be.

    A file appears under its name only when whole; one already there is replaced.

    Args:
        folder: the models folder.
        version: of the UNet.
    """
    spec = MODELS[version]
    told = {**MARK, marks.VERSION: version, marks.RESOLUTION: str(spec.resolution)}
    _write_safetensors(_unet_weights(), folder / Path(spec.unet.path).with_suffix(".safetensors"), told)
    _write_safetensors(_vae_weights(), folder / VAE.path, MARK)
    _write_whisper(folder / WHISPER.path)


def _unet_weights() -> dict[str, Tensor]:
    return _filled(checkpoint.meta_shapes(lambda: UNet(UNET)), lambda: UNet(UNET))


def _vae_weights() -> dict[str, Tensor]:
    def tiny() -> nn.Module:
        return autoencoder_of(VAE_CHANNELS, layers=1)

    return _filled(checkpoint.meta_shapes(tiny), tiny)


def _whisper_encoder() -> WhisperEncoder:
    return WhisperEncoder(WHISPER_DIMS)


def _whisper_decoder() -> nn.Module:
    from whisper.model import TextDecoder

    sizes = (WHISPER_DIMS[f"n_{name}"] for name in ("vocab", "text_ctx", "text_state", "text_head", "text_layer"))
    return nn.ModuleDict({"decoder": TextDecoder(*sizes)})


def _filled(shapes: Shapes, factory: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Random weights for these shapes, and the factory's own tables."""
    tables = {key: tensor for key, tensor in factory().state_dict().items() if key.endswith(BUFFERS)}
    return {key: tables[key] if key in tables else _random(key, shape) for key, shape in shapes.items()}


def _random(key: str, shape: tuple[int, ...]) -> Tensor:
    """The same on every machine: scales about one, biases about zero, matrices that keep the size of what they map."""
    seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) > 1:
        return values / math.sqrt(math.prod(shape[1:]))
    return values * 0.02 + (1.0 if key.endswith("weight") else 0.0)


def _held(name: str, tensors: dict[str, Tensor], metadata: Mapping[str, object] = MARK) -> Checkpoint:
    return Checkpoint(Path(f"synthetic {name}"), tensors, dict(metadata))


def _write_safetensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    _write_whole(path, lambda part: save_file(tensors, part, metadata))


def _write_whisper(path: Path) -> None:
    """The official layout, float16 and with the decoder, though that is never run."""
    weights = _filled(checkpoint.meta_shapes(_whisper_encoder), _whisper_encoder)
    decoder = checkpoint.meta_shapes(_whisper_decoder)
    weights |= {key: torch.zeros(shape) for key, shape in decoder.items()}
    content = {
        **MARK,
        "dims": WHISPER_DIMS,
        "model_state_dict": {key: tensor.half() for key, tensor in weights.items()},
    }
    _write_whole(path, lambda part: torch.save(content, part))


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    write(part)
    part.replace(path)
