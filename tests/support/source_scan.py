"""What source files import and name, and what a registry scan refuses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

BANNED = {"subprocess", "urllib", "requests", "pickle", "socket", "ctypes", "importlib"}
FLAGGED = {"os.environ", "os.system", "os.popen", "eval", "exec", "__import__", "PromptServer", "web.static"}


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports absolutely."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def names(path: Path) -> Iterator[str]:
    """Every name and attribute in a file, with its dots."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)


def node_ids(folder: Path) -> set[str]:
    """The ids of the nodes in a folder, read from the source as the registry reads them.

    It looks for classes that inherit from io.ComfyNode themselves, and for a node_id that is written out.
    """
    found = set()
    for path in folder.glob("*.py"):
        for made in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(made, ast.ClassDef) and "io.ComfyNode" in map(ast.unparse, made.bases):
                words = [word for word in ast.walk(made) if isinstance(word, ast.keyword)]
                ids = [ast.unparse(word.value) for word in words if word.arg == "node_id"]
                assert ids == [repr(made.name)], path
                found.add(made.name)
    return found
