"""The layout of each template after a run, in both versions of ComfyUI's page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from latentsync.weights.catalog import SELFIE_SEGMENTER
from scripts.browser import ComfyPage, opened, program
from scripts.comfyui import ComfyUI
from scripts.sample_clip import Sample
from tests.support import graphs
from tests.support.pages import open_with_samples, overlaps_after_run
from tests.support.paths import REPOSITORY
from tests.support.toy_segmenter import write_toy_segmenter

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium or Chrome is installed")

NEEDS_OTHER_WEIGHTS = {"lipsync_image_to_video"}  # 10 GB of Wan 2.2
TEMPLATES = sorted({path.stem for path in graphs.WORKFLOWS.glob("*.json")} - NEEDS_OTHER_WEIGHTS)


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "nodes-2"])
def page(comfyui: ComfyUI, request: pytest.FixtureRequest) -> Iterator[ComfyPage]:
    """The page of a ComfyUI with a stand-in for the segmenter, which one template needs."""
    segmenter = write_toy_segmenter(comfyui.models / SELFIE_SEGMENTER.path)
    with opened(comfyui.url, nodes_2=request.param) as shown:
        yield shown
    segmenter.unlink()


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_nodes_do_not_overlap_after_a_run(
    page: ComfyPage, sample: Sample, name: str, request: pytest.FixtureRequest
) -> None:
    open_with_samples(page, name)
    assert overlaps_after_run(page) == []
    page.picture(REPOSITORY / "artifacts" / "browser" / f"{request.node.name}.png")
