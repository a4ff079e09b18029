"""The rules of the house that a machine can check: what may import what, and what may not stand in the pack."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARY = sorted((REPOSITORY / "latentsync").rglob("*.py"))
NODES = [REPOSITORY / "__init__.py", *sorted((REPOSITORY / "nodes").rglob("*.py"))]

COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "nodes", "server", "execution"}
NETWORK = {"huggingface_hub", "http", "httpx", "aiohttp", "ftplib", "websocket"}
BANNED = {"subprocess", "urllib", "requests", "pickle", "socket", "ctypes", "importlib"}


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports absolutely."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def names(path: Path) -> Iterator[str]:
    """Every name, attribute and called function of a file, dotted as far as it is written out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_the_library_knows_nothing_of_comfyui(path: Path) -> None:
    assert not COMFYUI & set(imported(path))


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=relative)
def test_the_pack_has_nothing_that_a_registry_scanner_flags(path: Path) -> None:
    assert not BANNED & set(imported(path))
    found = set(names(path))
    assert not found & {"os.environ", "os.system", "eval", "exec", "sys.path", "torch.autocast"}
    assert "print" not in found


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=relative)
def test_only_downloads_reach_the_network(path: Path) -> None:
    if path != REPOSITORY / "latentsync" / "weights" / "download.py":
        assert not NETWORK & set(imported(path))


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=relative)
def test_no_device_is_named(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert not [value for value in constants if isinstance(value, str) and value.startswith("cuda")]
    assert not [name for name in names(path) if name.endswith(".cuda")]


@pytest.mark.parametrize("path", LIBRARY + NODES, ids=relative)
def test_source_is_readable_on_every_windows_code_page(path: Path) -> None:
    path.read_text(encoding="utf-8").encode("cp1252")


def test_importing_the_library_and_the_pack_is_silent_and_loads_no_heavy_library() -> None:
    script = (
        "import sys, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('pack', r'{REPOSITORY / '__init__.py'}',"
        f" submodule_search_locations=[r'{REPOSITORY}'])\n"
        "pack = importlib.util.module_from_spec(spec); sys.modules['pack'] = pack; spec.loader.exec_module(pack)\n"
        "import latentsync, latentsync.weights.download, latentsync.weights.locate, latentsync.spec\n"
        "heavy = {'torch', 'cv2', 'mediapipe', 'whisper', 'diffusers', 'av', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'loaded at import: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
