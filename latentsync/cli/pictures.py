"""PNG files that commands write in addition to their text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError, cannot_write
from .outputs import check_output_path


def check_png(path: Path, inputs: Sequence[Path | None]) -> None:
    """Raise UsageError if the command cannot write `path` as a PNG file. Call this before the slow stages."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path.name} does not end in .png. Choose a PNG file with -o, such as picture.png.")
    check_output_path(path, inputs)


def write_png(path: Path, content: bytes) -> None:
    """Write a picture, or raise MediaError."""
    from ..fileio import atomic_write
    from ..output.output_path import reserve_path

    with reserve_path([path]):
        try:
            atomic_write(path, content)
        except OSError as error:
            raise cannot_write(path, error) from error
