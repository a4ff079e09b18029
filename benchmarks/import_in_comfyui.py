"""The process that `benchmarks.importing` measures: ComfyUI's modules are loaded first, then the pack.

Usage: python import_in_comfyui.py PROGRAM PACK [PACKAGE ...]: the packages cannot be imported by the pack. The last
line on stdout is JSON; what else stands behind LOADED, on stdout and stderr, the pack has said.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PACK = "the_pack"  # ComfyUI, too, imports packs under names of its own
LOADED = "ComfyUI's own modules are loaded"


class Refusal:
    """An import hook: some packages are not installed."""

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = frozenset(packages)
        self.asked: list[str] = []

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - called by name
        if name.partition(".")[0] in self.packages:
            self.asked.append(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def install(self) -> None:
        for name in [name for name in sys.modules if name.split(".")[0] in self.packages]:
            del sys.modules[name]
        sys.meta_path.insert(0, self)  # pyright: ignore[reportArgumentType]


def main() -> None:
    program, pack, *refused = sys.argv[1:]
    load_comfyui(program)
    refusal = Refusal(refused)
    refusal.install()
    before = set(sys.modules)
    for stream in (sys.stdout, sys.stderr):
        print(LOADED, file=stream, flush=True)
    started = time.perf_counter()
    nodes = asyncio.run(load_pack(Path(pack)))
    seconds = time.perf_counter() - started
    came = {name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {PACK}
    told = {"seconds": seconds, "nodes": nodes, "packages": sorted(came), "asked": refusal.asked}
    print(json.dumps(told))


def load_comfyui(program: str) -> None:
    """What ComfyUI has imported by the time it comes to packs."""
    sys.argv = sys.argv[:1]
    sys.path[:1] = [program]  # its `nodes`, and not this repository's
    from comfy.cli_args import args

    args.cpu = True
    for name in ("nodes", "server", "comfy.sd", "comfy_api.latest", "comfy_api.input_impl"):
        importlib.import_module(name)
    from app.node_replace_manager import NodeReplaceManager
    from server import PromptServer

    PromptServer.instance = SimpleNamespace(node_replace_manager=NodeReplaceManager())


async def load_pack(folder: Path) -> list[str]:
    """Import the pack and read every node's schema, as ComfyUI does; returns the nodes' names."""
    place = {"submodule_search_locations": [str(folder)]}
    spec = importlib.util.spec_from_file_location(PACK, folder / "__init__.py", **place)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    extension = await module.comfy_entrypoint()
    await extension.on_load()
    nodes: list[Any] = await extension.get_node_list()
    return [node.GET_SCHEMA().node_id for node in nodes]


if __name__ == "__main__":
    main()
