"""What our own files say about themselves, in a safetensors file's metadata (or beside a pickle's weights)."""

from __future__ import annotations

from pathlib import Path

from .errors import WeightsError

VERSION = "latentsync_version"
WEIGHTS = "latentsync_weights"
SOURCE = "latentsync_source_sha256"
RESOLUTION = "resolution"

SYNTHETIC = "synthetic"  # untrained weights, made to try the machinery
CONVERTED = "converted"


def read(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its weights; of any other kind of file, none.

    Raises:
        WeightsError: the file is no safetensors file, or cut short.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: cannot be read as weights ({error}). It has {path.stat().st_size:,} bytes; it may be cut short: "
            "delete it and download it again."
        ) from error
