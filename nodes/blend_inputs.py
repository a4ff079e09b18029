"""Inputs of the nodes that paste mouths into frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..latentsync.compositing.settings import BLENDERS, BlendSettings, MaskEdge
from ..latentsync.sampling.lip_track import LipTrack
from .io_types import Lips, expect_type

if TYPE_CHECKING:
    from ..latentsync.audio.waveform import Waveform
    from ..latentsync.output.result import LipSyncResult

MAX_SPEAKERS = 8
OLD_GRAPH = (
    '"paste_mode" must be {modes}. A graph that was saved with an older version has other names: "blend" is now '
    '"paste_mode", "guidance" is "cfg", "scheduler" is "sampler_name", "length" is "length_mode", "faces" is '
    '"face_track", "embeds" is "audio_embeds". Delete the LatentSync nodes and add them again, or use a template.'
)


def lips_input() -> io.Autogrow.Input:
    """One input for each speaker. ComfyUI always shows one free input after the connected inputs."""
    tooltip = (
        "Connect the output of Sampler. For several speakers, connect one Sampler for each speaker. All Samplers "
        "must use the same original video."
    )
    return io.Autogrow.Input(
        "lips",
        template=io.Autogrow.TemplateNames(
            Lips.Input("lips", tooltip=tooltip), [f"lips_{number}" for number in range(1, MAX_SPEAKERS + 1)], min=1
        ),
        tooltip=tooltip,
    )


def protect_mask_input() -> io.Input:
    return io.Mask.Input(
        "protect_mask",
        optional=True,
        tooltip="Connect a mask of the pixels to keep, such as a hand. Use one mask, or one mask for each frame. "
        "The masks must have the same size as the video.",
    )


def paste_inputs() -> list[io.Input]:
    blend, edge = BlendSettings(), MaskEdge()
    return [
        io.Combo.Input(
            "paste_mode",
            options=list(BLENDERS),
            default=blend.mode,
            advanced=True,
            tooltip="Choose what to replace. 'mouth' replaces only the mouth area, with a soft edge. 'full crop' "
            "replaces the whole face crop, like the official code.",
        ),
        io.Float.Input(
            "mask_feather",
            default=100 * edge.feather,
            min=0.0,
            max=30.0,
            step=0.5,
            advanced=True,
            tooltip="Percent of the crop width to use for the soft edge of the mouth mask. Raise the value if you see "
            "the edge. Works only if paste_mode is 'mouth'.",
        ),
        io.Float.Input(
            "mask_expand",
            default=100 * edge.grow,
            min=-20.0,
            max=20.0,
            step=0.5,
            advanced=True,
            tooltip="Percent of the crop width to add to the mask. Raise the value if the old mouth shows. Negative "
            "values shrink the mask. Works only if paste_mode is 'mouth'.",
        ),
        io.Boolean.Input(
            "color_match",
            default=blend.color_match,
            advanced=True,
            tooltip="Match the colors of the new mouth to the skin around the mouth. Turn this off if the colors "
            "flicker.",
        ),
    ]


def match_texture_input() -> io.Input:
    return io.Boolean.Input(
        "match_texture",
        default=BlendSettings().match_texture,
        advanced=True,
        tooltip="Match the sharpness and grain of the new mouth to the skin above the mouth. Turn this on if the "
        "mouth looks smoother than the face.",
    )


def check_paste_mode(paste_mode: object) -> bool | str:
    """True if the mode exists, or else the error for `validate_inputs`.

    None means that the input is connected. "" means an old graph without this input. ComfyUI itself names the missing
    inputs of the last node of an old graph, but not their old names.
    """
    return paste_mode in (None, *BLENDERS) or OLD_GRAPH.format(modes=" or ".join(BLENDERS))


def lip_sync_result(
    lips: Mapping[str, LipTrack | None],
    paste_mode: str,
    mask_feather: float,
    mask_expand: float,
    color_match: bool,
    match_texture: bool,
    protect_mask: torch.Tensor | None,
    audio: Waveform | None = None,
) -> LipSyncResult:
    """Build the library's result from the connected speakers and the paste inputs."""
    from ..latentsync.output.result import LipSyncResult

    speakers = [
        expect_type(name, track, LipTrack, "Sampler") for name, track in sorted(lips.items()) if track is not None
    ]
    mask = None
    if protect_mask is not None:
        mask = expect_type("protect_mask", protect_mask, torch.Tensor, "Load Image (as Mask), or another MASK output")
        mask = mask.detach().cpu().numpy()
    settings = BlendSettings(paste_mode, MaskEdge(mask_expand / 100, mask_feather / 100), color_match, match_texture)
    return LipSyncResult(tuple(speakers), settings, mask, audio)
