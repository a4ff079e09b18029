"""Load weights into networks: with strict keys and shapes, without a copy, and without running code from the file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..models.clipseg import clipseg, set_positions
from ..models.layers import AttentionFn, attention
from ..models.protocols import Operations
from ..models.stable_syncnet import StableSyncNet
from ..models.syncnet import SyncNet
from ..models.unet import UNet, UNetConfig
from ..models.vae import DiffusersVAE, autoencoder, diffusers_names
from ..models.whisper import TINY, WhisperEncoder, whisper_encoder
from .fp8 import FP8, KEPT, scaled_operations, to_fp8
from .metadata import unreadable

if TYPE_CHECKING:
    from transformers import CLIPSegForImageSegmentation

Module = TypeVar("Module", bound=nn.Module)
Shapes = dict[str, tuple[int, ...]]

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".ckpt", ".model")
WRAPPERS = ("state_dict", "model_state_dict")  # keys under which a pickle may hold its tensors
SHOWN_KEYS = 3  # keys of each kind of difference in an error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a weights file.

    path: the file.
    tensors: the tensors by key, memory-mapped if the format allows it.
    metadata: strings from safetensors, or any plain values from a pickle.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def shapes(self) -> Shapes:
        return shapes_of(self.tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({self.path.name}, {len(self.tensors)} tensors)"


def load_unet(
    source: Path | Checkpoint,
    ops: Operations = nn,
    dtype: torch.dtype | None = None,
    attention: AttentionFn = attention,
    norm_dtype: torch.dtype | None = None,
) -> UNet:
    """Load a LatentSync UNet: an official file, a converted file, or a file with other channel counts.

    Args:
        source: the file, or its content.
        ops: the classes of the layers with weights, see `UNet`.
        dtype: dtype of the weights. None keeps the dtype of the file. The function scales fp8 weights, see
            `weights.fp8`.
        attention: see `UNet`.
        norm_dtype: dtype of norms, biases and positional tables. None takes `dtype`.

    Raises:
        WeightsError: the file cannot be read, or its state dict does not match.
    """
    checkpoint = as_checkpoint(source)
    with error_prefix(checkpoint.path):
        config = UNetConfig.from_shapes(checkpoint.shapes)
    layers = scaled_operations(ops) if dtype == FP8 else ops
    return build(
        lambda: UNet(config, layers, attention),
        checkpoint.tensors,
        name=checkpoint.path,
        dtype=dtype,
        norm_dtype=norm_dtype,
        expected=None if ops is nn else meta_shapes(lambda: UNet(config)),
    )


def load_whisper(source: Path | Checkpoint) -> WhisperEncoder:
    """Load the encoder of an official Whisper tiny file in float32, without the decoder.

    Raises:
        WeightsError: the file cannot be read, or is not Whisper tiny.
    """
    checkpoint = as_checkpoint(source)
    dims = checkpoint.metadata.get("dims")
    if not isinstance(dims, dict):
        raise WeightsError(
            f"{checkpoint.path} is not a Whisper file. The sizes of the model are missing. Use OpenAI's tiny.pt."
        )
    sizes = cast("dict[str, int]", dims)
    wrong = [f"{name} is not {size}" for name, size in TINY.items() if sizes.get(name) != size]
    if wrong:
        raise WeightsError(f"{checkpoint.path} is not Whisper tiny ({', '.join(wrong)}). Use OpenAI's tiny.pt.")
    encoder = {key: tensor for key, tensor in checkpoint.tensors.items() if not key.startswith("decoder.")}
    return build(whisper_encoder(sizes), encoder, name=checkpoint.path, dtype=torch.float32)


def load_vae(source: Path | Checkpoint, dtype: torch.dtype | None = None) -> DiffusersVAE:
    """Load a VAE from a file in the layout of diffusers (old or new attention names) or of CompVis.

    Raises:
        WeightsError: the file cannot be read, or its state dict does not match.
    """
    checkpoint = as_checkpoint(source)
    tensors = diffusers_names(checkpoint.tensors)
    with error_prefix(checkpoint.path):
        factory = autoencoder(shapes_of(tensors))
    return DiffusersVAE(build(factory, tensors, name=checkpoint.path, dtype=dtype))


def load_syncnet(source: Path | Checkpoint) -> SyncNet:
    """Load SyncNet v2 in float32.

    Raises:
        WeightsError: the file cannot be read, or its state dict does not match.
    """
    checkpoint = as_checkpoint(source)
    return build(SyncNet, checkpoint.tensors, name=checkpoint.path, dtype=torch.float32)


def load_stable_syncnet(source: Path | Checkpoint) -> StableSyncNet:
    """Load StableSyncNet in float32.

    Raises:
        WeightsError: the file cannot be read, or its state dict does not match.
    """
    checkpoint = as_checkpoint(source)
    return build(StableSyncNet, checkpoint.tensors, name=checkpoint.path, dtype=torch.float32)


def load_clipseg(source: Path | Checkpoint) -> CLIPSegForImageSegmentation:
    """Load CLIPSeg in float32, of any size.

    Raises:
        DependencyError: transformers cannot be imported.
        WeightsError: the file cannot be read, or its state dict does not match.
    """
    checkpoint = as_checkpoint(source)
    tensors = {key: tensor for key, tensor in checkpoint.tensors.items() if not key.endswith(".position_ids")}
    try:
        network = build(clipseg(shapes_of(tensors)), tensors, name=checkpoint.path, dtype=torch.float32)
    except KeyError as error:
        raise WeightsError(
            f"{checkpoint.path} is not CLIPSeg ({error} is missing). Download the correct file to this path."
        ) from error
    set_positions(network)
    return network


def read(path: Path) -> Checkpoint:
    """Read a .safetensors, .pt, .pth, .ckpt or .model file on the CPU, without running code from the file.

    Raises:
        WeightsError: the file is missing or incomplete, or contains more than tensors and plain values.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist. Check the path, or download the file.")
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return _read_pickle(path)
    raise WeightsError(f"{path} is not a weights file. Use a file that ends in {', '.join((SAFETENSORS, *PICKLES))}.")


def build(
    factory: Callable[[], Module],
    tensors: Mapping[str, Tensor],
    *,
    name: Path | str,
    dtype: torch.dtype | None = None,
    norm_dtype: torch.dtype | None = None,
    expected: Shapes | None = None,
) -> Module:
    """Build a network from a state dict. The keys must match exactly.

    Args:
        factory: makes the network. The function calls `factory` on the meta device, which allocates and initializes
            nothing. The factory must not import libraries, because some libraries compute with tensors during the
            import.
        tensors: the state dict. The network uses these tensors without a copy.
        name: name of the file in errors.
        dtype: dtype of the weights. None keeps the dtype of each tensor.
        norm_dtype: dtype of norms, biases and positional tables. None takes `dtype`.
        expected: expected shapes by key. Required for layers that create their weights on loading. None takes the
            network's shapes.

    Returns:
        The network, frozen and in eval mode.

    Raises:
        WeightsError: keys or shapes differ.
    """
    with torch.device("meta"):
        module = factory()
    check_shapes(shapes_of(tensors), expected or shapes_of(module.state_dict()), name)
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        is_matrix = tensor.ndim in (2, 4)  # linear layers and convolutions. Positional tables have 3 dimensions
        target = norm_dtype or dtype if not is_matrix or (dtype == FP8 and key.startswith(KEPT)) else dtype
        if target == FP8:
            state[key] = to_fp8(tensor)
        else:
            state[key] = tensor.to(target) if target is not None and tensor.is_floating_point() else tensor
    module.load_state_dict(state, strict=True, assign=True)
    unset = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
    if unset:
        raise WeightsError(
            f"Internal error: {len(unset)} weights of {name} were not set ({_first_keys(unset)}). Please report this."
        )
    return module.eval().requires_grad_(False)


def check_shapes(shapes: Shapes, expected: Shapes, name: Path | str) -> None:
    """Raise one WeightsError that lists all differences."""
    differences = {
        "missing": sorted(expected.keys() - shapes.keys()),
        "unknown": sorted(shapes.keys() - expected.keys()),
        "of another size": [key for key, shape in expected.items() if key in shapes and shapes[key] != shape],
    }
    texts = [f"{len(keys)} {kind} ({_first_keys(keys)})" for kind, keys in differences.items() if keys]
    if texts:
        raise WeightsError(
            f"{name} does not have the weights of this network: {', '.join(texts)}. "
            "Choose the correct file, or download the file again."
        )


def meta_shapes(factory: Callable[[], nn.Module]) -> Shapes:
    """The shapes of a network's state dict, without allocating the network."""
    with torch.device("meta"):
        return shapes_of(factory().state_dict())


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor, by key."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def as_checkpoint(source: Path | Checkpoint) -> Checkpoint:
    """The content of a file. Raises the errors of `read`."""
    return source if isinstance(source, Checkpoint) else read(source)


@contextmanager
def error_prefix(path: Path) -> Generator[None, None, None]:
    """Put the path of a file in front of a WeightsError."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            return Checkpoint(path, tensors, dict(file.metadata() or {}))
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error


def _read_pickle(path: Path) -> Checkpoint:
    try:
        # files of torch < 1.6 are not zip archives and cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises a dozen types for damaged files
        if "Weights only load failed" in str(error):
            raise WeightsError(
                f"{path} is not a checkpoint, or contains data that is not weights. LatentSync ran no code from this "
                "file. Use the official file, or a .safetensors file."
            ) from error
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} contains no model weights. Use the official file.")
    values = cast("dict[str, object]", content)
    wrapper = next((key for key in WRAPPERS if isinstance(values.get(key), dict)), None)
    entries = cast("dict[str, object]", values[wrapper]) if wrapper else values
    tensors = {key: value for key, value in entries.items() if isinstance(value, Tensor)}
    if len(tensors) < len(entries) or not tensors:
        raise WeightsError(
            f"{path} has {len(entries)} entries, but only {len(tensors)} of them are weights. Use the official file."
        )
    return Checkpoint(path, tensors, {key: value for key, value in values.items() if wrapper and key != wrapper})


def _first_keys(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
