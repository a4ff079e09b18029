"""Check that every node of a cluster can use the same files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from .. import __version__
from ..errors import DependencyError, StorageError, cannot_write
from ..fileio import temp_path
from .connection import load_ray

CHECK_SECONDS = 120.0


def check_nodes(files: Iterable[Path], folders: Iterable[Path]) -> None:
    """Check that all nodes can read the inputs and can write to the folders of the outputs.

    Raises:
        StorageError: a node cannot read a file or cannot write to a folder.
        DependencyError: a node cannot load this package, or has another version of it.
    """
    ray = load_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    sizes = {file: file.stat().st_size for file in files}
    probes: dict[Path, str] = {}
    try:
        for folder in folders:
            probe = temp_path(folder / "probe.txt")
            probes[probe] = uuid4().hex
            try:
                probe.write_text(probes[probe], encoding="utf-8")
            except OSError as error:
                raise cannot_write(folder, error) from error
        checks = {
            node["NodeManagerAddress"]: ray.remote(problems)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(sizes, probes)
            for node in ray.nodes()
            if node["Alive"]
        }
        for address, check in checks.items():
            try:
                version, node_problems = ray.get(check, timeout=CHECK_SECONDS)
            except ray.exceptions.RayError as error:
                raise DependencyError(
                    f"Node {address} cannot run LatentSync ({_last_line(error)}). Install the same version with its "
                    "requirements on every node."
                ) from error
            if version != __version__:
                raise DependencyError(
                    f"Node {address} has version {version} of LatentSync, not {__version__}. Install the same version "
                    "on every node."
                )
            if node_problems:
                raise StorageError(
                    f"Node {address} {node_problems[0]} ({len(node_problems)} problems). Put videos, recordings, "
                    "models and outputs on a path that all nodes share."
                )
    finally:
        for probe in probes:
            with suppress(OSError):
                probe.unlink(missing_ok=True)


def problems(sizes: Mapping[Path, int], probes: Mapping[Path, str]) -> tuple[str, Sequence[str]]:
    """The version of this node's package, and a text for each file or folder that the node cannot use."""
    texts: list[str] = []
    for probe, content in probes.items():
        try:
            is_shared = probe.read_text(encoding="utf-8") == content
            temporary = temp_path(probe)
            temporary.touch()
            temporary.unlink()
        except OSError:
            is_shared = False
        if not is_shared:
            texts.append(f"cannot write to the shared folder {probe.parent}")
    for file, size in sizes.items():
        if not file.is_file() or file.stat().st_size != size:
            texts.append(f"does not see the file {file}")
    return __version__, texts


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
