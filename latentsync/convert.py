"""An official UNet file as safetensors: half the disk, mapped instead of copied, and it says what it is."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint, marks, verify
from .checkpoint import Checkpoint
from .errors import StorageError, UsageError, WeightsError
from .models.unet import UNet, UNetConfig
from .progress import Progress, Task
from .weights.catalog import MODELS, Version

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16}
NAMES = {torch.float16: "F16", torch.bfloat16: "BF16"}  # safetensors' own
ALIGNED_BYTES = 8  # of the header, so that every tensor can be mapped


def convert(source: Path, target: Path, version: Version, dtype: torch.dtype) -> Task[None]:
    """Write a UNet file as safetensors; it appears under its name only when whole.

    Args:
        source: a LatentSync UNet, in any format.
        target: the file to write.
        version: of the weights.
        dtype: torch.float16 or torch.bfloat16.

    Raises:
        WeightsError: the source is not that network, or has weights that the precision cannot hold.
        UsageError: the target is there, is no .safetensors, or has no folder.
        StorageError: the target's folder has no room, or cannot be written to.
    """
    read = check(source, target, dtype)
    digest = yield from verify.sha256(source)
    part = target.with_name(f"{target.name}.part")
    try:
        yield from _write(read, part, dtype, _marks_of(read, version, digest))
        part.replace(target)
    except OSError as error:
        raise StorageError(f"{target}: cannot be written ({error}): choose another place with -o") from error
    finally:
        part.unlink(missing_ok=True)


def check(source: Path, target: Path, dtype: torch.dtype) -> Checkpoint:
    """Refuse what cannot be converted, before anybody hashes 5 GB; returns what was read. Raises as `convert`."""
    if target.suffix != checkpoint.SAFETENSORS:
        raise UsageError(f"{target}: what is written is a .safetensors file: choose such a name")
    if target.exists():
        raise UsageError(f"{target}: is there already: delete it, or choose another name with -o")
    folder = target.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist: make it, or choose another name with -o")
    read = checkpoint.read(source)
    with checkpoint.naming(source):
        config = UNetConfig.from_shapes(read.shapes)
    checkpoint.check_shapes(read.shapes, checkpoint.meta_shapes(lambda: UNet(config)), source)
    needed, free = _bytes_of(read, dtype), shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder}: {needed / 1e6:,.0f} MB are needed there, and {free / 1e6:,.0f} MB are free: make room, "
            "or choose another place with -o"
        )
    return read


def _marks_of(read: Checkpoint, version: Version, digest: str) -> dict[str, str]:
    kind = read.metadata.get(marks.WEIGHTS, marks.CONVERTED)
    return {
        marks.VERSION: version,
        marks.RESOLUTION: str(MODELS[version].resolution),
        marks.SOURCE: digest,
        marks.WEIGHTS: str(kind),
    }


def _write(read: Checkpoint, part: Path, dtype: torch.dtype, told: Mapping[str, str]) -> Task[None]:
    """The safetensors format (length of the header, header, tensors), tensor by tensor: little memory, and steps."""
    header = _header(read.tensors, dtype, told)
    total, done = _bytes_of(read, dtype), 0
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for key in sorted(read.tensors):
            cast = read.tensors[key].to(dtype).contiguous()
            if not bool(torch.isfinite(cast).all()):
                raise WeightsError(f"{read.path}: {key} has values that {NAMES[dtype]} cannot hold: use bf16.")
            done += file.write(cast.flatten().view(torch.uint8).numpy().data)
            yield Progress(f"writing {part.stem}", done, total)


def _bytes_of(read: Checkpoint, dtype: torch.dtype) -> int:
    """What the tensors take in that precision."""
    return sum(tensor.numel() for tensor in read.tensors.values()) * dtype.itemsize


def _header(tensors: Mapping[str, Tensor], dtype: torch.dtype, told: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(told)}
    at = 0
    for key in sorted(tensors):
        end = at + tensors[key].numel() * dtype.itemsize
        entries[key] = {"dtype": NAMES[dtype], "shape": list(tensors[key].shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % ALIGNED_BYTES)
