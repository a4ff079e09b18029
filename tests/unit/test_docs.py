"""Links, commands and names in the documentation are real."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import latentsync
from api.client import ALIASES, Request
from latentsync.cli.main import _parser
from latentsync.output.formats import FORMATS
from latentsync.weights import catalog
from scripts import cli_reference
from tests.support.paths import REPOSITORY

READMES = [REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md"]
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
HELP = sorted((REPOSITORY / "web" / "docs").rglob("*.md"))
PAGES = [*READMES, REPOSITORY / "CHANGELOG.md", *DOCS, *HELP]
FOR_USERS = [
    *READMES,
    *HELP,
    *(REPOSITORY / "docs" / f"{name}.md" for name in ("settings", "guide", "speed", "faq", "gpu")),
]

OTHERS_NAMES = {
    "clip_batch_size",
    "deepcache_cache_interval",
    "auto_oom_fallback",
    "inference_steps",
    "lips_expression",
    "loop_to_audio",
    "scheduler_type",
    "silent_padding_sec",
    "video_path",
    "vram_usage",
}
"""Inputs of other packs, in docs/settings.md."""
SAMPLERS = {"dpmpp_2m", "uni_pc"}
OTHER_FLAGS = {
    "--cpu-vae",
    "--deterministic",
    "--fp8_e4m3fn-unet",
    "--use-sage-attention",
    "--disable-metadata",
    "--lowvram",
    "--novram",
    "--highvram",
    "--gpu-only",
    "--max-upload-size",
    "--preview-method",
    "--reserve-vram",
}
OTHER_FLAGS |= {"--graph", "--stages", "--help", "--shift", "--stops"}
"""Flags of ComfyUI, of the API client, of the benchmarks and of the tests."""


def page_name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


@each_page
def test_docs_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "http://")):
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.is_file(), target
            assert not anchor or anchor in anchors(file), target


@each_page
def test_docs_latentsync_commands_parse(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"(?:`|^ *)[./\w]*python -m latentsync +([^`#\n]+)", text, re.MULTILINE):
        arguments = shlex.split(command)
        if len(arguments) > 1 or arguments[0] not in cli_reference.commands():  # a bare name stands for the command
            _parser().parse_args(arguments)


@each_page
def test_docs_flags_exist(page: Path) -> None:
    known = {flag for command in cli_reference.commands().values() for flag in command._option_string_actions}
    assert set(re.findall(r"(?<=`)--[a-z0-9_-]+", page.read_text(encoding="utf-8"))) <= known | OTHER_FLAGS


@each_page
def test_docs_commands_name_modules_and_files_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"python -m ((?:benchmarks|scripts|tests)[\w.]*\w)", text):
        place = REPOSITORY / name.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), name
    for name in re.findall(r"python ([\w/]+\.py)\b", text):
        assert (REPOSITORY / name).is_file(), name


@each_page
def test_docs_make_targets_exist(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", FOR_USERS, ids=page_name)
def test_docs_names_are_inputs_or_outputs_of_nodes(page: Path) -> None:
    """Names with an underscore are those of node inputs, outputs and options, of templates, or of other packs."""
    nodes = json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")).values()
    known = {name for node in nodes for name in node["inputs"]}
    known |= {output["name"] for node in nodes for output in node["outputs"].values()}
    known |= {path.stem for path in (REPOSITORY / "workflows").glob("*.json")}
    used = re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", page.read_text(encoding="utf-8"))
    assert set(used) - known - SAMPLERS - (OTHERS_NAMES if page.stem == "settings" else set()) == set()


def test_docs_readme_shows_both_commands_at_once() -> None:
    for readme in READMES:
        first = "\n".join(readme.read_text(encoding="utf-8").splitlines()[:25])
        assert "`make demo`" in first
        assert "`make test`" in first


def test_docs_clone_address_stands_in_one_place() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (address,) = re.findall(r'^Repository = "(.*)"$', project, re.MULTILINE)
    assert [page_name(page) for page in PAGES if address in page.read_text(encoding="utf-8")] == ["docs/install.md"]
    listed = (
        (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8").partition("## After the pack is listed")[2]
    )
    assert f"git clone {address}\n" in listed


def test_docs_weights_table_equals_catalog() -> None:
    text = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    files = [spec.unet for spec in catalog.MODELS.values()]
    files += [catalog.WHISPER, catalog.VAE, catalog.FACE_LANDMARKER, catalog.SYNCNET]
    for file in files:
        size = f"{file.size_bytes / 1e9:.1f} GB" if file.size_bytes > 1e9 else f"{file.size_bytes / 1e6:.0f} MB"
        folder = f"`models/{file.path.removesuffix(file.name)}`"
        (line,) = (line for line in text.splitlines() if f"| {folder} |" in line and file.name in line)
        assert line.endswith(f"| {size} | {file.license} |")


def test_docs_guide_lists_every_output_format() -> None:
    text = (REPOSITORY / "docs" / "guide.md").read_text(encoding="utf-8")
    section = text.partition("## Output formats")[2].partition("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith(("| mp4", "| webm", "| mov", "| mkv"))]
    names = [name for row in rows for name in row.split("|")[1].strip().split(", ")]
    assert names == [format.name for format in FORMATS]


def test_docs_command_line_page_equals_the_parser() -> None:
    text = cli_reference.PAGE.read_text(encoding="utf-8")
    assert text.partition(cli_reference.MARK)[2] == cli_reference.reference(), "run python -m scripts.cli_reference"


def test_docs_api_page_lists_the_fields_of_the_client() -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == {*Request.__dataclass_fields__, *ALIASES}


@pytest.mark.parametrize("page", DOCS, ids=page_name)
def test_docs_python_blocks_import_public_names(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "latentsync":
                assert all(hasattr(latentsync, alias.name) for alias in node.names)


def test_package_has_the_pack_and_no_tests(tmp_path: Path) -> None:
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs Git, and a checkout: what is packed is what Git tracks")
    archive = tmp_path / "pack.zip"
    subprocess.run(["make", "--silent", "package", f"PACKAGE={archive}"], cwd=REPOSITORY, check=True)
    with zipfile.ZipFile(archive) as packed:
        files = {Path(name).relative_to("latentsync-nodes") for name in packed.namelist()}
    tops = {file.parts[0] for file in files if file.parts}
    ignored = {line.strip("/") for line in (REPOSITORY / ".comfyignore").read_text(encoding="utf-8").split()}
    assert not tops & ignored
    assert not {file.as_posix() for file in files} & ignored
    assert {Path("__init__.py"), Path("requirements.txt"), Path("nodes/sampler.py"), Path("web/docs")} <= files


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
