"""The metadata of LatentSync in the headers of safetensors files, and beside the weights in pickles."""

from __future__ import annotations

from pathlib import Path

from ..errors import WeightsError

VERSION = "latentsync_version"
WEIGHTS = "latentsync_weights"
SOURCE = "latentsync_source_sha256"
RESOLUTION = "resolution"

SYNTHETIC = "synthetic"  # untrained weights, for tests
MINIATURE = "miniature"  # trained on one face, for the demo
SMALL = (SYNTHETIC, MINIATURE)  # these networks have other sizes than the published files
CONVERTED = "converted"


def read(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its weights. Empty for any other kind of file.

    Raises:
        WeightsError: the file is not a safetensors file, or it is incomplete.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, cause: Exception) -> WeightsError:
    """The error for a weights file that cannot be read. Raise the error from `cause`."""
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    return WeightsError(
        f"{path} cannot be read as weights ({reason}). The file has {path.stat().st_size:,} bytes and may be "
        "incomplete. Delete this file, then download it again."
    )
