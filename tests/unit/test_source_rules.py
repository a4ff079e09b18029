"""The source has nothing that a registry scan refuses, and names no device."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image

from scripts.compat import NODES
from tests.support.paths import REPOSITORY
from tests.support.source_scan import BANNED, FLAGGED, imported, names, node_ids

SOURCES = [REPOSITORY / "__init__.py"]
SOURCES += sorted((REPOSITORY / "latentsync").rglob("*.py")) + sorted((REPOSITORY / "nodes").rglob("*.py"))

ENVIRONMENT = REPOSITORY / "latentsync" / "cluster" / "connection.py"
"""Ray reads its settings from the environment alone. No node imports this file."""


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_passes_the_registry_scan(path: Path) -> None:
    assert not BANNED & set(imported(path))
    found = set(names(path))
    allowed = {"os.environ"} if path == ENVIRONMENT else set()
    assert not found & (FLAGGED | {"sys.path", "torch.autocast"}) - allowed
    assert "print" not in found


def test_registry_finds_every_node_in_the_source() -> None:
    assert node_ids(REPOSITORY / "nodes") == NODES


@pytest.mark.parametrize("path", sorted((REPOSITORY / "nodes").rglob("*.py")), ids=relative)
def test_nodes_know_no_cluster_and_no_batch(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in modules if {"cluster", "batch", "cli"} & set(name.split("."))]


def test_every_script_of_the_page_has_tests() -> None:
    """tests/comfyui/test_page.py and tests/nightly/browser/test_blueprint.py test these scripts."""
    scripts = {path.name for path in (REPOSITORY / "web").rglob("*.js")}
    assert scripts == {"advanced_inputs.js", "socket_colors.js", "video_preview.js"}


@pytest.mark.parametrize(("field", "widest"), [("Icon", (400, 400)), ("Banner", (1260, 540))])
def test_registry_pictures_are_at_their_address(field: str, widest: tuple[int, int]) -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (repository,) = re.findall(r'^Repository = "https://github.com/(.*)"$', text, re.MULTILINE)
    (address,) = re.findall(rf'^{field} = "(.*)"$', text, re.MULTILINE)
    parts = urlparse(address)
    assert parts.netloc == "raw.githubusercontent.com"
    branch, path = parts.path.removeprefix(f"/{repository}/").split("/", 1)
    assert branch == "main"
    with Image.open(REPOSITORY / path) as picture:
        assert picture.size == widest


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source_names_no_device(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert not [value for value in constants if isinstance(value, str) and value.startswith("cuda")]
    assert not [name for name in names(path) if name.endswith(".cuda")]


def test_python_files_pass_the_lint_of_comfy_test() -> None:
    """The lint refuses layers with the name of their module, because ComfyUI's own layers cast and move their weights.
    It also refuses characters that Windows code pages lack.
    """
    layers = r"(?<![\w.])(torch\.)?nn\.(Linear|Conv[123]d|ConvTranspose[12]d|LayerNorm|GroupNorm|Embedding)\("
    folders = [folder for folder in REPOSITORY.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    paths = [*REPOSITORY.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert len(paths) > len(SOURCES)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert not re.search(layers, text), path
        assert text.encode("cp1252", errors="ignore").decode("cp1252") == text, path


def test_import_is_silent_and_loads_no_heavy_library() -> None:
    script = (
        "import sys, importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('pack', r'{REPOSITORY / '__init__.py'}',"
        f" submodule_search_locations=[r'{REPOSITORY}'])\n"
        "pack = importlib.util.module_from_spec(spec); sys.modules['pack'] = pack; spec.loader.exec_module(pack)\n"
        "import latentsync, latentsync.weights.locate, latentsync.weights.catalog\n"
        "heavy = {'torch', 'cv2', 'mediapipe', 'whisper', 'diffusers', 'av', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'loaded at import: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
