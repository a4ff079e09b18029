"""The documentation names what is there: files, templates, nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    own = [target for target in targets if not target.startswith(("https://", "http://"))]
    assert [target for target in own if not (page.parent / target).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_it_tells_to_run_is_there(page: Path) -> None:
    named = set(re.findall(r"python -m ((?:benchmarks|scripts|tests)[\w.]+)", page.read_text(encoding="utf-8")))
    assert [name for name in named if not (REPOSITORY / f"{name.replace('.', '/')}.py").is_file()] == []


def test_the_readme_lists_every_template() -> None:
    listed = re.findall(r"^\| `(lipsync_\w+)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (REPOSITORY / "workflows").glob("*.json"))


def test_the_readme_lists_every_node() -> None:
    words = json.loads((REPOSITORY / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    listed = re.findall(r"^\| (LatentSync [\w ]+) \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(node["display_name"] for node in words.values())


def test_the_readme_begins_with_the_two_commands() -> None:
    assert re.findall(r"^make \w+", README, re.MULTILINE)[:2] == ["make demo", "make test"]
