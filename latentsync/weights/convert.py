"""Convert a UNet checkpoint to fp16 or bf16 safetensors. The file is half as large, and loads by memory mapping."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from ..errors import StorageError, UsageError, WeightsError, reason_of
from ..fileio import atomic_write, sha256_file
from ..models.unet import UNet, UNetConfig
from ..progress import Progress, Task
from . import loader, metadata
from .catalog import Version
from .loader import Checkpoint
from .locate import check_digest, identify_unet

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def convert(source: Path, target: Path, precision: str, version: Version | None = None) -> Task[Version]:
    """Write a UNet as safetensors. The source is memory-mapped, so the conversion needs only the target's size in RAM.

    Args:
        source: a LatentSync UNet in any format.
        target: the file to write. The file gets this name when it is complete.
        precision: a key of PRECISIONS.
        version: version of the weights. An unofficial file requires this argument.

    Returns:
        The version of the weights.

    Raises:
        WeightsError: the source is damaged or not a LatentSync UNet, or has values that the precision cannot represent.
        UsageError: the target exists, is not a .safetensors file or has no folder, or the version is unknown.
        StorageError: the target's folder is full or not writable.
    """
    dtype = PRECISIONS[precision]
    checkpoint = _check(source, target, dtype)
    spec = identify_unet(source, version)
    digest = yield from sha256_file(source)
    if source.stat().st_size == spec.unet.size_bytes:
        check_digest(spec.unet, source, digest)
    header = {
        metadata.VERSION: spec.version,
        metadata.RESOLUTION: str(spec.resolution),
        metadata.SOURCE: digest,
        metadata.WEIGHTS: str(checkpoint.metadata.get(metadata.WEIGHTS, metadata.CONVERTED)),
    }
    tensors = yield from _cast(checkpoint, precision)
    size = sum(tensor.nbytes for tensor in tensors.values())
    yield Progress(f"writing {target.name}", 0, size)
    try:
        atomic_write(target, lambda path: _save(tensors, path, header))
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written ({reason_of(error)}). Check the free space, or choose another folder with -o."
        ) from error
    yield Progress(f"writing {target.name}", size, size)
    return spec.version


def _check(source: Path, target: Path, dtype: torch.dtype) -> Checkpoint:
    """Check the source and the target before the hashing of 5 GB. Returns the content of the source."""
    if target.suffix != loader.SAFETENSORS:
        raise UsageError(f"{target} does not end in {loader.SAFETENSORS}. Choose another name with -o.")
    if target.exists():
        raise UsageError(f"{target} exists already. Delete this file, or choose another name with -o.")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist. Create this folder, or choose another name with -o.")
    checkpoint = loader.read(source)
    with loader.error_prefix(source):
        config = UNetConfig.from_shapes(checkpoint.shapes)
    loader.check_shapes(checkpoint.shapes, loader.meta_shapes(lambda: UNet(config)), source)
    needed, free = _size_of(checkpoint, dtype), shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 1e6:,.0f} MB of free space, but the output needs {needed / 1e6:,.0f} MB. "
            "Free some space, or choose another folder with -o."
        )
    return checkpoint


def _cast(checkpoint: Checkpoint, precision: str) -> Task[dict[str, Tensor]]:
    dtype = PRECISIONS[precision]
    total, done = _size_of(checkpoint, dtype), 0
    tensors: dict[str, Tensor] = {}
    for key, tensor in checkpoint.tensors.items():
        tensors[key] = tensor.to(dtype, copy=True).contiguous()
        if not bool(torch.isfinite(tensors[key]).all()):
            is_sound = bool(torch.isfinite(tensor).all())
            advice = "Use --precision bf16." if is_sound else "The file is damaged. Download this file again."
            raise WeightsError(
                f"{checkpoint.path} has NaN or infinite values after conversion to {precision} (weight {key}). {advice}"
            )
        done += tensors[key].nbytes
        yield Progress(f"converting {checkpoint.path.name}", done, total)
    return tensors


def _size_of(checkpoint: Checkpoint, dtype: torch.dtype) -> int:
    return sum(tensor.numel() for tensor in checkpoint.tensors.values()) * dtype.itemsize


def _save(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, header)
    except SafetensorError as error:  # safetensors raises it if the disk is full
        raise OSError(str(error)) from error
