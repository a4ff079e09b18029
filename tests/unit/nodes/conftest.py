"""The modules of the nodes, imported beside a real ComfyUI's, without a server."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.paths import REPOSITORY

PACK = "the_pack"  # ComfyUI, too, imports packs under names of its own


@pytest.fixture(scope="session")
def comfyui_modules() -> Iterator[None]:
    """Makes the modules of ComfyUI importable, on the CPU."""
    folder = next(iter(sorted((REPOSITORY / ".comfyui").glob("ComfyUI-*"))), None)
    if folder is None:
        pytest.skip("needs ComfyUI in .comfyui/, where `make venv` puts it")
    sys.path.append(str(folder))
    from comfy.cli_args import args

    args.cpu = True
    yield
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def pack(comfyui_modules: None) -> ModuleType:
    """The package of the nodes; its modules are its attributes."""
    root = _package(PACK, REPOSITORY)
    sys.modules[PACK] = root
    return importlib.import_module(f"{PACK}.nodes")


def _package(name: str, folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    return importlib.util.module_from_spec(spec)


@pytest.fixture
def old_video(comfyui_modules: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Makes a VIDEO that does not report its trim, as in ComfyUI before 0.23."""
    from comfy_api.input import VideoInput

    monkeypatch.delattr(VideoInput, "get_active_trim_window", raising=False)

    class Old(VideoInput):
        def __init__(self, video: Any) -> None:
            self._video = video

        def get_components(self) -> Any:
            return self._video.get_components()

        def get_stream_source(self) -> Any:
            return self._video.get_stream_source()

        def get_duration(self) -> float:
            return self._video.get_duration()

        def as_trimmed(self, *given: Any, **named: Any) -> Any:
            return Old(self._video.as_trimmed(*given, **named))

        def save_to(self, *given: Any, **named: Any) -> None:
            self._video.save_to(*given, **named)

    return Old


@pytest.fixture(scope="session")
def nodes(pack: ModuleType) -> dict[str, dict[str, Any]]:
    """The information about each node that ComfyUI sends to its page."""
    extension = pack.LatentSyncExtension()
    pack.model_folders.register_model_folders()
    infos = [node.GET_NODE_INFO_V1() for node in asyncio.run(extension.get_node_list())]
    return {info["name"]: info for info in infos}
