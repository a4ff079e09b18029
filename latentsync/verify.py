"""SHA-256 of files: computed once, and remembered beside a large one for as long as it does not change."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from .progress import Progress, Task

BLOCK_BYTES = 16 << 20
REMEMBERED_BYTES = 128 << 20  # smaller files are hashed again: it takes a fraction of a second


def sha256(path: Path) -> Task[str]:
    """The hash of a file, in hexadecimal: remembered if its size and time of change are still those, else computed."""
    before = _state(path)
    known = remembered(path)
    if known is not None:
        return known
    digest = yield from compute(path)
    if _state(path) == before:
        remember(path, digest)
    return digest


def remembered(path: Path) -> str | None:
    """The hash that was computed when the file was as it is now."""
    with suppress(OSError, ValueError, RecursionError):
        note = json.loads(note_of(path).read_text(encoding="utf-8"))
        if isinstance(note, dict) and note | _state(path) == note and "sha256" in note:
            return str(note["sha256"])
    return None


def remember(path: Path, digest: str) -> None:
    """Write the hash beside a large file; a folder that cannot be written to only costs hashing again."""
    state = _state(path)
    if state["size"] < REMEMBERED_BYTES:
        return
    with suppress(OSError):
        part = note_of(path).with_suffix(".part")
        part.write_text(json.dumps({**state, "sha256": digest}), encoding="utf-8")
        part.replace(note_of(path))


def note_of(path: Path) -> Path:
    """Where the hash of a file is remembered."""
    return path.with_name(f".{path.name}.sha256.json")


def compute(path: Path) -> Task[str]:
    """The hash of a file, without looking for a remembered one."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            yield Progress(f"checking {path.name}", done, total)
    return digest.hexdigest()


def _state(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
