"""Checks of output files, before the slow stages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError


def check_record_path(path: Path, inputs: Sequence[Path | None]) -> None:
    """Raise UsageError like `check_output_path`, or for a file that is not the record of an earlier run."""
    check_output_path(path, inputs)
    if path.exists() and not is_json_with(path, "mark"):
        raise UsageError(
            f"{path} exists and is not a run record, so LatentSync does not replace it. "
            "Choose another output, or add --no-save-record."
        )


def is_json_with(path: Path, key: str) -> bool:
    """Whether a file is a JSON object with this key."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and key in content


def check_output_path(path: Path, inputs: Sequence[Path | None]) -> None:
    """Raise UsageError if the output has no folder, is a folder, or is one of the inputs."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist. Create this folder, or choose another output.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Choose another output.")
    if path.exists() and any(file is not None and file.exists() and path.samefile(file) for file in inputs):
        raise UsageError(f"{path} is one of the inputs. Choose another output.")
