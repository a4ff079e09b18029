"""Graphs of other packs: which of our nodes ComfyUI offers for theirs."""

from __future__ import annotations

import pytest

from scripts.comfyui import ComfyUI, InvalidPromptError
from tests.comfyui import graphs

OLD_OUTPUTS = ["IMAGE", "AUDIO"]
OLD_INPUTS = {"seed": 1247, "lips_expression": 1.5, "inference_steps": 20}


@pytest.mark.parametrize("old", ["LatentSyncNode", "D_LatentSyncNode"])
def test_what_followed_the_old_node_stays_wired(comfyui: ComfyUI, old: str) -> None:
    (offered,) = comfyui.get("/node_replacements").json()[old]
    ours = comfyui.object_info(offered["new_node_id"])[offered["new_node_id"]]
    mapped = {entry["old_idx"]: ours["output"][entry["new_idx"]] for entry in offered["output_mapping"]}
    assert [mapped[index] for index in sorted(mapped)] == OLD_OUTPUTS


def test_a_replaced_node_asks_for_lips_and_for_nothing_else(comfyui: ComfyUI) -> None:
    graph: graphs.Graph = {
        "frames": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 2, "color": 0}},
        "sound": {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}},
        "old": {
            "class_type": "LatentSyncNode",
            "inputs": {"images": ["frames", 0], "audio": ["sound", 0], **OLD_INPUTS},
            "_meta": {"title": "LatentSync"},
        },
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["old", 0], "filename_prefix": "old"}},
        "heard": {"class_type": "PreviewAudio", "inputs": {"audio": ["old", 1]}},
    }
    with pytest.raises(InvalidPromptError) as caught:
        comfyui.queue(graph)
    assert set(caught.value.node_errors) == {"old"}
    assert caught.value.node_errors["old"]["class_type"] == "LatentSyncToImages"
    assert [error["details"] for error in caught.value.node_errors["old"]["errors"]] == ["lips0"]
