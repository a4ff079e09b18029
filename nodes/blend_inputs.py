"""Inputs of the nodes that paste mouths into frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ..latentsync.compositing.settings import BLENDERS
from ..latentsync.sampling.lip_track import LipTrack
from .io_types import Lips, expect_type

if TYPE_CHECKING:
    from ..latentsync.audio.waveform import Waveform
    from ..latentsync.output.result import LipSyncResult

MOST_SPEAKERS = 8


def lips_input() -> io.Autogrow.Input:
    """One input more than are connected."""
    one = Lips.Input("lips", tooltip="From Sampler. For several speakers one each, all on the same source.")
    return io.Autogrow.Input(
        "lips",
        template=io.Autogrow.TemplatePrefix(one, prefix="lips", min=1, max=MOST_SPEAKERS),
        tooltip="From Sampler. For several speakers one each, all on the same source.",
    )


def blend_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "blend",
            options=list(BLENDERS),
            default="mouth",
            tooltip="mouth changes only what the model made anew, with a soft edge: all other pixels stay the "
            "source's. box lays in the whole crop, as the authors' program does.",
        ),
        io.Float.Input(
            "feather",
            default=8.0,
            min=0.0,
            max=30.0,
            step=0.5,
            tooltip="Width of the soft edge of blend mouth, inside the mask, in percent of the face crop's width.",
        ),
        io.Float.Input(
            "grow",
            default=0.0,
            min=-20.0,
            max=20.0,
            step=0.5,
            tooltip="Widens the mask of blend mouth (negative: narrows it), in percent of the face crop's width. "
            "Widen it where an old mouth or chin shows at its edge.",
        ),
        io.Boolean.Input(
            "color_match",
            default=True,
            tooltip="Gives the new mouth the colors that the skin around it has in the source. A face whose colors "
            "are right already stays as it is.",
        ),
    ]


def protect_input() -> io.Input:
    return io.Mask.Input(
        "protect",
        optional=True,
        tooltip="Pixels that stay the source's: a hand, a microphone, hair. One mask, or one for each source frame, "
        "of the source's size.",
    )


def lip_sync_result(
    lips: Mapping[str, LipTrack | None],
    blend: str,
    feather: float,
    grow: float,
    color_match: bool,
    protect: torch.Tensor | None,
    audio: Waveform | None = None,
) -> LipSyncResult:
    """The connected speakers and the blend inputs as the library's result."""
    from ..latentsync.compositing.settings import BlendSettings, MaskEdge
    from ..latentsync.output.result import LipSyncResult

    speakers = [
        expect_type(name, track, LipTrack, "Sampler") for name, track in sorted(lips.items()) if track is not None
    ]
    mask = None
    if protect is not None:
        mask = expect_type("protect", protect, torch.Tensor, "Load Image (as Mask), or any node that makes a MASK")
        mask = mask.detach().cpu().numpy()
    settings = BlendSettings(blend, MaskEdge(grow / 100, feather / 100), color_match)
    return LipSyncResult(tuple(speakers), settings, mask, audio)
