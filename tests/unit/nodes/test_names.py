"""Names, defaults and tooltips of the nodes' inputs, beside those of the command line."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from latentsync.cli import run
from latentsync.output.run_record import NODE_NAMES
from tests.support.node_schemas import inputs

NODES = (
    "LatentSyncLoadModel",
    "LatentSyncFacePrep",
    "LatentSyncAudioEmbed",
    "LatentSyncSampler",
    "LatentSyncVideoCombine",
)
MAX_TOOLTIP = 160  # characters: ComfyUI's tooltips show about three lines

FILES = {
    "audio",
    "background",
    "face_landmarks",
    "protect_mask",
    "reference_face",
    "speech_of_source",
    "unet",
    "vae",
    "vocals",
}
"""Sockets of the nodes (a list of files for `unet`), and paths on the command line."""
BY_SUFFIX = {"format"}
"""The command line knows the output's suffix, and the node does not."""
NODE_ONLY = {
    "audio_embeds": "a connection",
    "download_missing": "a command of its own",
    "face_track": "a connection",
    "filename_prefix": "--output is the whole name",
    "image_fps": "a file has its own frame rate",
    "lips": "a connection",
    "model": "a connection",
    "source": "VIDEO on the command line",
}
COMMAND_LINE_ONLY = {
    "audio_track": "AUDIO holds one track",
    "cluster": "several machines share a video",
    "cpus_per_worker": "of a cluster",
    "device": "ComfyUI chooses it",
    "min_sync_confidence": "a graph compares the output of Score itself",
    "models": "ComfyUI's folders",
    "output": "`filename_prefix` on the node",
    "miniature": "to test an installation",
    "video": "`source` on the node",
}
PRECISIONS_OF_COMFYUI = {"fp8"}  # its operations store weights in one dtype and compute in another


@pytest.fixture
def settings(nodes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of the inputs of all nodes in a chain from the model to the video."""
    return {name: options for node in NODES for name, _, options in inputs(nodes[node])}


@pytest.fixture
def flags() -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser()
    run.add_parser(lambda _, **__: parser)
    return {action.dest: action for action in parser._actions if action.dest != "help"}


def test_names_nodes_and_command_line_share_them(
    settings: dict[str, dict[str, Any]], flags: dict[str, argparse.Action]
) -> None:
    assert settings.keys() - flags.keys() == NODE_ONLY.keys()
    assert flags.keys() - settings.keys() == COMMAND_LINE_ONLY.keys()
    for name, action in flags.items():
        long = [option for option in action.option_strings if option.startswith("--")]
        assert not long or long[0] == "--" + name.replace("_", "-")


def test_names_nodes_and_command_line_share_defaults(
    settings: dict[str, dict[str, Any]], flags: dict[str, argparse.Action]
) -> None:
    for name in flags.keys() & settings.keys() - FILES - BY_SUFFIX:
        assert settings[name]["default"] == flags[name].default, name


def test_names_nodes_and_command_line_share_options(
    settings: dict[str, dict[str, Any]], flags: dict[str, argparse.Action]
) -> None:
    for name in flags.keys() & settings.keys() - FILES:
        if "options" in settings[name]:
            options = set(settings[name]["options"]) - (PRECISIONS_OF_COMFYUI if name == "precision" else set())
            assert options == set(flags[name].choices or ()), name


def test_names_the_record_shares_them(settings: dict[str, dict[str, Any]]) -> None:
    assert {name for name, _ in NODE_NAMES.values()} <= settings.keys()


def test_names_every_tooltip_is_short(nodes: dict[str, Any]) -> None:
    for node, info in nodes.items():
        tooltips = {name: options["tooltip"] for name, _, options in inputs(info)}
        tooltips |= dict(zip(info["output_name"], info["output_tooltips"], strict=True))
        assert {name: len(text) for name, text in tooltips.items() if not 0 < len(text) <= MAX_TOOLTIP} == {}, node


def test_names_advanced_inputs_come_last(nodes: dict[str, Any]) -> None:
    """ComfyUI's page hides them until the user asks for them."""
    for node, info in nodes.items():
        required = [
            options.get("advanced", False) for name, _, options in inputs(info) if name in info["input"]["required"]
        ]
        assert required == sorted(required), node
