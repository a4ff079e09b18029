"""The miniature model: small networks in the official layout, trained on one face.

The model runs every stage without ByteDance's weights. `training/miniature` trained the model on scikit-image's
`astronaut`. The UNet and the VAE are in the repository, but not in the published archive. The Whisper encoder has
random weights, which the code computes from a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import WeightsError
from ..fileio import atomic_write
from ..models.unet import UNet
from ..models.vae import DiffusersVAE
from ..models.whisper import WhisperEncoder
from . import loader, metadata, random_init
from .catalog import MODELS, VAE, WHISPER

FOLDER = Path(__file__).resolve().parents[2] / "demo" / "miniature"
UNET_FILE, VAE_FILE = "unet.safetensors", "vae.safetensors"
RESOLUTION = 128  # of the face crops, in pixels
VERSION = "1.5"  # version whose layout it has
METADATA = {
    metadata.WEIGHTS: metadata.MINIATURE,
    metadata.VERSION: VERSION,
    metadata.RESOLUTION: str(RESOLUTION),
    "description": "miniature model for the demo: trained on one face, not ByteDance's model",
}

MEL_GAIN = 2.0  # factor for each convolution, so that the audio outweighs the position embeddings
BLOCK_GAIN = 0.05  # factor for each block's updates, so that a hidden state depends only on its own position


def unet() -> UNet:
    return loader.load_unet(files()[0], dtype=torch.float32)


def vae() -> DiffusersVAE:
    return loader.load_vae(files()[1], dtype=torch.float32)


def whisper() -> WhisperEncoder:
    return loader.load_whisper(loader.Checkpoint(Path("miniature whisper"), whisper_state(), _whisper_values()))


def whisper_state() -> dict[str, Tensor]:
    """The state dict of the encoder: random convolutions, and blocks that change their input only a little."""
    state = random_init.whisper_state()
    for key in state:
        if ".conv" in key and key.endswith(".weight"):
            state[key] = state[key] * MEL_GAIN
        if ".attn.out." in key or ".mlp.2." in key:
            state[key] = state[key] * BLOCK_GAIN
    return state


def save(unet_state: Mapping[str, Tensor], vae_state: Mapping[str, Tensor], folder: Path) -> None:
    """Write trained weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, state in ((UNET_FILE, unet_state), (VAE_FILE, vae_state)):
        halved = {key: tensor.half().contiguous() for key, tensor in state.items()}
        atomic_write(folder / name, lambda path, halved=halved: save_file(halved, path, METADATA))


def write_models(folder: Path) -> None:
    """Write a models folder for ComfyUI with the miniature model under the names of the official files."""
    unet_path, vae_path = files()
    whisper_values = {**_whisper_values(), "model_state_dict": {k: t.half() for k, t in whisper_state().items()}}
    contents = {
        MODELS[VERSION].unet.path.replace(".pt", ".safetensors"): unet_path.read_bytes(),
        VAE.path: vae_path.read_bytes(),
        WHISPER.path: lambda path: torch.save(whisper_values, path),
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / name, content)


def _whisper_values() -> dict[str, object]:
    return {metadata.WEIGHTS: metadata.MINIATURE, "dims": dict(random_init.WHISPER_DIMS)}


def files() -> tuple[Path, Path]:
    """The paths of the UNet and the VAE. Raises WeightsError if the installed package does not contain these files."""
    paths = FOLDER / UNET_FILE, FOLDER / VAE_FILE
    for path in paths:
        if not path.is_file():
            raise WeightsError(
                f"{path} is missing. The miniature model is only in the repository. Run the command in a clone of the "
                "repository, or download the real models."
            )
    return paths
