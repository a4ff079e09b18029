"""Weights from files into networks: read without running code, checked to the last key, assigned without a copy."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from .errors import WeightsError
from .models.layers import AttentionFn, attention
from .models.protocols import Operations
from .models.unet import UNet, UNetConfig
from .models.vae import DiffusersVAE, autoencoder, diffusers_names
from .models.whisper import TINY, WhisperEncoder

Module = TypeVar("Module", bound=nn.Module)
Shapes = dict[str, tuple[int, ...]]

SAFETENSORS = ".safetensors"
PICKLES = (".pt", ".pth", ".ckpt")
WRAPPERS = ("state_dict", "model_state_dict")  # under which a pickle may hold its tensors
SHOWN_KEYS = 3  # of each kind, in an error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file of weights.

    path: where it was read from.
    tensors: by key, mapped from the file where its format allows.
    metadata: what the file says besides: strings in safetensors, anything plain in a pickle.
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
    fine: torch.dtype | None = None,
) -> UNet:
    """A LatentSync UNet from an official checkpoint, a converted one, or one of other widths.

    Args:
        source: the file, or what was read of it.
        ops: namespace of the layers with weights, see `UNet`.
        dtype: of the weights; by default as in the file.
        attention: see `UNet`.
        fine: of norms, biases and tables; by default `dtype`.

    Raises:
        WeightsError: the file is unreadable, or not exactly that network.
    """
    checkpoint = as_checkpoint(source)
    with naming(checkpoint.path):
        config = UNetConfig.from_shapes(checkpoint.shapes)
    expected = None if ops is nn else meta_shapes(lambda: UNet(config))
    return build(
        lambda: UNet(config, ops, attention),
        checkpoint.tensors,
        name=checkpoint.path,
        dtype=dtype,
        fine=fine,
        expected=expected,
    )


def load_whisper(source: Path | Checkpoint) -> WhisperEncoder:
    """The encoder of an official Whisper file, float32; the file's decoder is left out.

    Raises:
        WeightsError: the file is unreadable, or its encoder is not exactly Whisper's.
    """
    checkpoint = as_checkpoint(source)
    dims = checkpoint.metadata.get("dims")
    if not isinstance(dims, dict):
        raise WeightsError(f"{checkpoint.path}: not a Whisper file: it has no dims. Use OpenAI's tiny.pt.")
    sizes = cast("dict[str, int]", dims)
    others = {name: sizes.get(name) for name, size in TINY.items() if sizes.get(name) != size}
    if others:
        raise WeightsError(
            f"{checkpoint.path}: not Whisper's encoder tiny: {', '.join(f'{k} is {v!r}' for k, v in others.items())}, "
            f"and should be {', '.join(str(TINY[name]) for name in others)}. Use OpenAI's tiny.pt."
        )
    encoder = {key: tensor for key, tensor in checkpoint.tensors.items() if not key.startswith("decoder.")}
    return build(lambda: WhisperEncoder(sizes), encoder, name=checkpoint.path, dtype=torch.float32)


def load_vae(source: Path | Checkpoint, dtype: torch.dtype | None = None) -> DiffusersVAE:
    """A VAE from a file in diffusers' layout (the attention's old names or new ones) or in the original, CompVis's.

    Raises:
        WeightsError: the file is unreadable, or not exactly such a VAE.
    """
    checkpoint = as_checkpoint(source)
    tensors = diffusers_names(checkpoint.tensors)
    shapes = shapes_of(tensors)
    with naming(checkpoint.path):
        expected = meta_shapes(lambda: autoencoder(shapes))
    vae = build(lambda: autoencoder(shapes), tensors, name=checkpoint.path, dtype=dtype, expected=expected)
    return DiffusersVAE(vae)


def read(path: Path) -> Checkpoint:
    """The tensors of a .safetensors, .pt, .pth or .ckpt file, on the CPU; no code in it is ever run.

    Raises:
        WeightsError: the file is missing, cut short, or holds anything but tensors and plain values.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file.")
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    if path.suffix in PICKLES:
        return _read_pickle(path)
    raise WeightsError(f"{path}: weights are {SAFETENSORS} or {', '.join(PICKLES)} files, not {path.suffix!r}.")


def build(
    factory: Callable[[], Module],
    tensors: Mapping[str, Tensor],
    *,
    name: Path | str,
    dtype: torch.dtype | None = None,
    fine: torch.dtype | None = None,
    expected: Shapes | None = None,
) -> Module:
    """A network whose every weight is one of `tensors`, and which uses every one of them.

    Args:
        factory: makes the network; called on the meta device, so nothing is allocated or initialised.
        tensors: by key; assigned, not copied.
        name: of the file, for errors.
        dtype: of the weights; by default each as it is.
        fine: of what is no matrix (norms, biases, tables); by default `dtype`.
        expected: shapes by key; by default those of the network (layers that allocate on loading do not know them).

    Returns:
        The network, frozen and in eval mode.

    Raises:
        WeightsError: keys or shapes differ.
    """
    with torch.device("meta"):
        module = factory()
    check_shapes(shapes_of(tensors), expected or shapes_of(module.state_dict()), name)
    state = {key: _cast(tensor, dtype if _is_matrix(tensor) else fine or dtype) for key, tensor in tensors.items()}
    module.load_state_dict(state, strict=True, assign=True)
    unfilled = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
    if unfilled:
        raise WeightsError(f"{name}: {len(unfilled)} weights were left empty ({_few(unfilled)}).")
    return module.eval().requires_grad_(False)


def check_shapes(given: Shapes, expected: Shapes, name: Path | str) -> None:
    """Raises one WeightsError that tells all differences."""
    faults = {
        "missing": sorted(expected.keys() - given.keys()),
        "unexpected": sorted(given.keys() - expected.keys()),
        "of the wrong shape": [
            f"{key} {list(given[key])} for {list(shape)}"
            for key, shape in expected.items()
            if key in given and given[key] != shape
        ],
    }
    told = [f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in faults.items() if keys]
    if told:
        raise WeightsError(
            f"{name}: its {len(given)} weights are not the {len(expected)} of this network: {'; '.join(told)}. "
            "Choose the right file, or download it again."
        )


def meta_shapes(factory: Callable[[], nn.Module]) -> Shapes:
    """The state-dict shapes of what a factory makes, without allocating it."""
    with torch.device("meta"):
        return shapes_of(factory().state_dict())


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor, by key."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def as_checkpoint(source: Path | Checkpoint) -> Checkpoint:
    """What was read of a file, read now if need be; raises as `read`."""
    return source if isinstance(source, Checkpoint) else read(source)


@contextmanager
def naming(path: Path) -> Generator[None, None, None]:
    """Puts a file's name in front of a WeightsError that does not know it."""
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
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> Checkpoint:
    try:
        # files of torch < 1.6 are no archives, and cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises a dozen kinds for damaged files, one of them an unpickler's own
        if "Weights only load failed" in str(error):
            raise WeightsError(
                f"{path}: holds more than weights (or is no checkpoint), and code in it is not run. "
                "Use the official file, or a .safetensors one."
            ) from error
        raise _unreadable(path, error) from error
    return _unwrap(path, content)


def _unwrap(path: Path, content: object) -> Checkpoint:
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not weights by name.")
    values = cast("dict[str, object]", content)
    wrapper = next((key for key in WRAPPERS if isinstance(values.get(key), dict)), None)
    held = cast("dict[str, object]", values[wrapper]) if wrapper else values
    tensors = {key: value for key, value in held.items() if isinstance(value, Tensor)}
    if len(tensors) < len(held) or not tensors:
        raise WeightsError(f"{path}: {len(held) - len(tensors)} of its {len(held)} entries are not weights.")
    return Checkpoint(path, tensors, {key: value for key, value in values.items() if wrapper and key != wrapper})


def _unreadable(path: Path, error: Exception) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{path}: cannot be read as weights ({_first_line(error)}). "
        f"It has {size:,} bytes; it may be cut short: download it again."
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.ndim in (2, 4)  # of a linear layer or a convolution; a table of positions has three dimensions


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
