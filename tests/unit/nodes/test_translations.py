"""Help pages and translations: complete, and equal to the texts of the nodes."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.node_schemas import inputs
from tests.support.paths import REPOSITORY

HELP = REPOSITORY / "web" / "docs"
IDENTIFIERS = {"version", "unet", "precision", "format", "sampler_name"}
"""Inputs whose options are names: of versions, files, number formats, codecs, methods."""

WITHOUT_DEFAULT = {"en": ("required", "optional", "empty"), "zh": ("\u5fc5\u586b", "\u53ef\u9009", "\u7a7a")}
TRANSLATED = {"ja": "shift_jis", "ko": "euc_kr", "zh": "gb2312", "zh-TW": "big5"}
"""ComfyUI's names of the languages, each with an encoding that lacks most characters of the others."""
INPUT = re.compile(r"^- \*\*(.+?)\*\* ?[(\uff08](.+?)[)\uff09]<br>", re.MULTILINE)
"""The name and the default of an input on a help page. Its meaning is below, as the panel of the page is narrow."""
EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")
"""Kana, Chinese characters and Hangul."""
FACTS = re.compile(r"%[a-zA-Z:-]+%|[0-9]+\.[0-9]+|[0-9]{2,}|[a-zA-Z0-9]+(?:_[a-zA-Z0-9]+)+")
"""Placeholders of file names, numbers of more than one digit, and names with an underscore."""

each_translation = pytest.mark.parametrize("language", TRANSLATED)


@pytest.fixture(scope="session")
def english() -> dict[str, Any]:
    return translations("en")


def test_locale_english_equals_node_texts(nodes: dict[str, Any], english: dict[str, Any]) -> None:
    assert english == {name: words(info) for name, info in nodes.items()}


@each_translation
def test_locale_has_every_key(english: dict[str, Any], language: str) -> None:
    assert dict(leaves(translations(language))).keys() == dict(leaves(english)).keys()


@each_translation
def test_locale_has_no_english_left(language: str) -> None:
    for path, text in leaves(translations(language)):
        is_sentence = path[-1] in {"tooltip", "description", "display_name"}
        assert EAST_ASIAN.search(text) or not (is_sentence or re.search("[a-z]", text)), (path, text)


@each_translation
def test_locale_uses_characters_of_its_language(language: str) -> None:
    for _, text in leaves(translations(language)):
        text.encode(TRANSLATED[language])


@each_translation
def test_locale_keeps_names_and_numbers(english: dict[str, Any], language: str) -> None:
    """A text that changes in English alone often changes one of these."""
    translated = dict(leaves(translations(language)))
    for path, text in leaves(english):
        if path[-1] in {"tooltip", "description"}:
            assert set(FACTS.findall(translated[path])) == set(FACTS.findall(text)), path


@pytest.mark.parametrize("language", ["en", *TRANSLATED])
def test_locale_has_no_placeholder_characters(language: str) -> None:
    """vue-i18n takes these for placeholders, links and plurals."""
    for path, text in leaves(translations(language)):
        assert not set("{}@|") & set(text), (path, text)


def test_locale_is_read_by_comfyui(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths
    from app.custom_node_manager import CustomNodeManager

    (tmp_path / "latentsync-nodes").symlink_to(REPOSITORY, target_is_directory=True)
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda _: [str(tmp_path)])
    expected = {language: {"nodeDefs": translations(language)} for language in ("en", *TRANSLATED)}
    assert CustomNodeManager().build_translations() == expected


def test_help_folder_is_the_packs_web_directory() -> None:
    exported = runpy.run_path(str(REPOSITORY / "__init__.py"))
    assert (REPOSITORY / exported["WEB_DIRECTORY"] / "docs").samefile(HELP)


def test_help_has_a_page_for_every_node(nodes: dict[str, Any]) -> None:
    found = {path.relative_to(HELP).as_posix() for path in HELP.rglob("*") if path.is_file()}
    assert found == {page for name in nodes for page in (f"{name}.md", f"{name}/zh.md")}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_lists_every_input_with_default(nodes: dict[str, Any], language: str) -> None:
    for name, info in nodes.items():
        shown = translations(language)[name]["inputs"]
        labels = {key: f"`{key}`" if language == "en" else f"{shown[key]['name']} `{key}`" for key in shown}
        expected = sorted((labels[key], default) for key, default in defaults(info, language))
        assert sorted(INPUT.findall(page(name, language))) == expected, name


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_lists_every_output(nodes: dict[str, Any], language: str) -> None:
    for name, info in nodes.items():
        shown = translations(language)[name]["outputs"]
        labels = [f"`{key}`" for key in info["output_name"]]
        if language == "zh":
            labels = [f"{shown[str(i)]['name']} {label}" for i, label in enumerate(labels)]
        assert [row[0] for row in rows(page(name, language))[2:]] == labels, (name, language)


@pytest.mark.parametrize("path", [HELP / "a_node.md", REPOSITORY / "locales" / "zh-TW" / "nodeDefs.json"])
def test_archive_keeps_help_and_locales(path: Path) -> None:
    parts = path.relative_to(REPOSITORY).parts
    lines = (REPOSITORY / ".comfyignore").read_text(encoding="utf-8").split()
    left_out = [line for line in lines if any(fnmatch(part, line.rstrip("/")) for part in [*parts, f"/{parts[0]}"])]
    assert not left_out


def translations(language: str) -> dict[str, Any]:
    return json.loads((REPOSITORY / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def words(info: dict[str, Any]) -> dict[str, Any]:
    """The texts of a node, in the form of ComfyUI's translation files."""
    outputs = zip(info["output_name"], info["output_tooltips"], strict=True)
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            key.replace(".", "_"): said for key, kind, told in inputs(info) for key, said in said_of(key, kind, told)
        },
        "outputs": {str(i): {"name": name, "tooltip": tooltip} for i, (name, tooltip) in enumerate(outputs)},
    }


def said_of(key: str, kind: str, told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The texts of an input, and of each socket that grows out of it."""
    said: dict[str, Any] = {"name": key, "tooltip": told["tooltip"]}
    if kind == "COMBO" and key not in IDENTIFIERS:
        said["options"] = {option: option for option in told["options"]}
    yield key, said
    if kind == "COMFY_AUTOGROW_V3":
        template = told["template"]
        ((_, socket),) = template["input"]["required"].values()
        yield from ((f"{key}.{name}", {"name": name, "tooltip": socket["tooltip"]}) for name in template["names"])


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def page(name: str, language: str) -> str:
    path = HELP / f"{name}.md" if language == "en" else HELP / name / f"{language}.md"
    return path.read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def defaults(info: dict[str, Any], language: str) -> Iterator[tuple[str, str]]:
    """Every input, and its default as a help page shows it."""
    required, optional, empty = WITHOUT_DEFAULT[language]
    for key, _, told in inputs(info):
        default = told.get("default")
        if default is None:
            yield key, optional if key in info["input_order"].get("optional", []) else required
        elif isinstance(default, bool):
            yield key, "`on`" if default else "`off`"
        else:
            yield key, (f"`{default}`" if isinstance(default, str) else f"`{default:g}`") if default != "" else empty
