"""The custom nodes that the tests' ComfyUI loads: this pack, the demo's nodes and the tests' own."""

from __future__ import annotations

from scripts.comfyui import PACK
from tests.support.paths import REPOSITORY

PACKS = {
    PACK: REPOSITORY,
    "latentsync-demo-nodes": REPOSITORY / "scripts" / "demo_nodes",
    "latentsync-test-nodes": REPOSITORY / "tests" / "support" / "narrow_nodes",
    "latentsync-test-video-helpers": REPOSITORY / "tests" / "support" / "video_helper_nodes",
}
