"""Links and commands in the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    own = [target for target in targets if not target.startswith(("https://", "http://"))]
    assert [target for target in own if not (page.parent / target).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_commands_name_modules_that_exist(page: Path) -> None:
    named = set(re.findall(r"python -m ((?:benchmarks|scripts|tests)[\w.]+)", page.read_text(encoding="utf-8")))
    places = {name: REPOSITORY / name.replace(".", "/") for name in named}
    assert [
        name
        for name, place in places.items()
        if not place.with_suffix(".py").is_file() and not (place / "__main__.py").is_file()
    ] == []
