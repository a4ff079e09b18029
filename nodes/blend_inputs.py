"""The inputs that say how lips are laid into frames, for the nodes that do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..latentsync.sampling.lip_track import LipTrack
from .io_types import Lips, expect_type

if TYPE_CHECKING:
    import numpy as np

    from ..latentsync.compositing.settings import BlendMode, BlendSettings

MOST_SPEAKERS = 8


def lips_input() -> io.Autogrow.Input:
    """One socket more than are wired."""
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
            options=["mouth", "box"],
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


def speakers(lips: Mapping[str, LipTrack | None]) -> list[LipTrack]:
    """What is wired, in order."""
    return [expect_type(name, track, LipTrack, "Sampler") for name, track in sorted(lips.items()) if track is not None]


def blend_settings(blend: BlendMode, feather: float, grow: float, color_match: bool) -> BlendSettings:
    from ..latentsync.compositing.settings import BlendSettings, MaskEdge

    return BlendSettings(blend, MaskEdge(grow / 100, feather / 100), color_match)


def protection(protect: torch.Tensor | None) -> np.ndarray | None:
    """A MASK (masks, H, W) as the library takes it."""
    if protect is None:
        return None
    masks = expect_type("protect", protect, torch.Tensor, "Load Image (as Mask), or whatever makes a MASK")
    return masks.detach().cpu().numpy()


def alpha_of(track: LipTrack) -> torch.Tensor | None:
    """(source frames, H, W) in 0..1, where the source has it."""
    source: Any = track.face_track.source
    return getattr(source, "alpha", None)
