"""The pack imports silently when ComfyUI starts, and loads no further library."""

from __future__ import annotations

from benchmarks.importing import load
from scripts.compat import NODES

OURS_TO_INSTALL = ("cv2", "diffusers", "huggingface_hub", "mediapipe", "whisper")


def test_pack_import_without_libraries_lists_every_node() -> None:
    loading = load(*OURS_TO_INSTALL)
    assert set(loading.nodes) == NODES
    assert loading.asked == []
    assert loading.packages == []
    assert loading.said == ""
