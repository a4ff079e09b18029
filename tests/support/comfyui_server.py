"""The custom nodes of the tests' ComfyUI (this pack, the demo's nodes, the tests' own) and its sample clip."""

from __future__ import annotations

from scripts.comfyui import PACK
from tests.support.paths import REPOSITORY

SAMPLE_SECONDS = 1.0  # of audio: 25 frames at 25 fps, 24 at 24 fps
SOURCE_FRAMES = 17  # of the sample video, which has two thirds of that
OUTPUT_FRAMES = 25
RESOLUTION = 128  # of the face crops: a run takes a fifth of the time that it takes at 256
WINDOWS = 2  # of 16 frames

PACKS = {
    PACK: REPOSITORY,
    "latentsync-demo-nodes": REPOSITORY / "scripts" / "demo_nodes",
    "latentsync-test-nodes": REPOSITORY / "tests" / "support" / "narrow_nodes",
    "latentsync-test-video-helpers": REPOSITORY / "tests" / "support" / "video_helper_nodes",
}
