"""Tokens of filename_prefix, as ComfyUI's page expands them for SaveVideo."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest

NOW = datetime(2026, 3, 7, 9, 5, 2)
PROMPT = {
    "1": {"class_type": "KSampler", "inputs": {"seed": 42, "model": ["2", 0]}},
    "2": {"class_type": "Loader", "_meta": {"title": "My model"}, "inputs": {"name": "a/b:c"}},
}


@pytest.mark.parametrize(
    ("prefix", "expanded"),
    [
        ("video/%date:yyyy-MM-dd%/a", "video/2026-03-07/a"),
        ("%date:yyMMdd_hhmmss%", "260307_090502"),
        ("%date:d.M%", "%date:d.M%"),  # the page splits at the dot, too
        ("%date:yyy/M/d%", "yyy/3/7"),
        ("%KSampler.seed%", "42"),
        ("%My model.name%", "a_b_c"),
        ("%KSampler.model%", "%KSampler.model%"),
        ("%year% %unknown% 100%", "%year% %unknown% 100%"),
    ],
)
def test_filename_prefix_tokens(pack: ModuleType, prefix: str, expanded: str) -> None:
    assert pack.filename_prefix.expand_tokens(prefix, PROMPT, NOW) == expanded


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("video/LatentSync", ""),
        ("%year%/a.b", ""),
        ("video/../clip", ""),
        ("..clip", ""),
        ("", ""),
        (None, ""),  # connected
        ("../clip", "is not in ComfyUI's output folder"),
        ("%year%/../../clip", "is not in ComfyUI's output folder"),
        ("/etc/clip", "is not in ComfyUI's output folder"),
        ("a\0b", "contains a null character"),
    ],
)
def test_video_combine_checks_prefix_before_the_run(
    pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str | None, problem: str
) -> None:
    monkeypatch.setattr(pack.video_combine.folder_paths, "get_output_directory", lambda: str(tmp_path))
    node = pack.video_combine.LatentSyncVideoCombine
    found = node.validate_inputs(paste_mode="mouth", filename_prefix=prefix)
    assert problem in found if problem else found is True
    assert not list(tmp_path.iterdir()), "the check creates no folder"
