"""The content of the archive that users get, and the checks of the registry and of comfy-test."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

from scripts.compat import NODES
from tests.support.registry import COMFY_CLI, of_package
from tests.support.source_scan import BANNED, FLAGGED, imported, names, node_ids

COMFY_TEST = "comfy-test==0.4.15"
LARGEST_BYTES = 2_000_000
OURS_ALONE = {
    "api",
    "tests",
    "scripts",
    "benchmarks",
    ".ci",
    "Makefile",
    "requirements-dev.txt",
    "requirements-fuzz.txt",
    ".gitignore",
    ".comfyignore",
    "comfy-test.toml",
}
NEEDED = {
    "__init__.py",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "requirements.txt",
    "latentsync/__main__.py",
    "latentsync/faces/keep_mask.json",
    "locales/zh/nodeDefs.json",
    "web/docs/LatentSyncSampler.md",
    "web/docs/LatentSyncSampler/zh.md",
    "workflows/lipsync_video.json",
    "subgraphs/Lip Sync (video).json",
}


def test_registry_validates_the_pack(checkout: Path, archive: Path, home: Path) -> None:
    assert archive.is_file()
    said = of_package(COMFY_CLI, "comfy", "--skip-prompt", "node", "validate", cwd=checkout, home=home)
    assert "All validation checks passed" in said
    assert "warning" not in said.lower()


def test_archive_is_small_and_holds_only_the_pack(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        files = set(packed.namelist())
    print(f"{len(files)} files, {archive.stat().st_size:,} bytes")
    assert archive.stat().st_size < LARGEST_BYTES
    assert not OURS_ALONE & {name.split("/")[0] for name in files}
    assert files >= NEEDED


def test_archive_passes_the_registry_scan(unpacked: Path) -> None:
    sources = sorted(unpacked.rglob("*.py"))
    assert sources
    for path in sources:
        assert not BANNED & set(imported(path)), path
        assert not FLAGGED & set(names(path)), path
    scripts = {path.name for path in unpacked.rglob("*.js")}
    assert scripts == {"advanced_inputs.js", "socket_colors.js", "video_preview.js"}, "a script needs tests of its own"


def test_registry_finds_every_node_in_the_archive(unpacked: Path) -> None:
    assert node_ids(unpacked / "nodes") == NODES


def test_archive_has_files_named_in_texts(unpacked: Path) -> None:
    pages = [path for path in unpacked.rglob("*.md") if path.name != "develop.md"]  # it names what may be added
    texts = [path.read_text(encoding="utf-8") for path in pages]
    texts += [path.read_text(encoding="utf-8") for path in (unpacked / "nodes").glob("*.py")]
    named = {name for text in texts for name in re.findall(r"\b(?:docs|workflows)/[\w/.-]*\w\.\w+", text)}
    assert named
    assert not {name for name in named if not (unpacked / name).is_file() and not (unpacked / "web" / name).is_file()}


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "checkout"])
def test_archive_passes_comfy_test_lint(packed: bool, unpacked: Path, checkout: Path, home: Path) -> None:
    folder = unpacked if packed else checkout
    said = of_package(COMFY_TEST, "comfy-test", "lint", "--strict", folder, cwd=home, home=home)
    assert "[SYNTAX] PASSED" in said
    assert "[JAVASCRIPT] PASSED" in said


def test_comfy_test_reads_our_settings(checkout: Path, home: Path) -> None:
    assert (checkout / "comfy-test.toml").is_file()
    said = of_package(
        COMFY_TEST, "comfy-test", "lint", "--check", "javascript", "--json", checkout, cwd=home, home=home
    )
    assert json.loads(said)["config_warning"] is None
