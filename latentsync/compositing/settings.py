"""Settings of the compositor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..errors import UsageError, check_choice

BlendMode = Literal["mouth", "box"]
"""What of a face is laid into the frame: the new mouth alone, or the whole crop, as upstream does."""


@dataclass(frozen=True, slots=True)
class MaskEdge:
    """Where the new mouth ends, in widths of the crop.

    grow: -0.2 to 0.2, widens the mask that the model was trained with.
    feather: 0 to 0.3, the inner edge over which it fades into the footage.
    """

    grow: float = 0.0
    feather: float = 0.08

    def __post_init__(self) -> None:
        if not -0.2 <= self.grow <= 0.2:
            raise UsageError(f"the mask can grow by -20 % to 20 % of the crop's width, not by {self.grow:.0%}")
        if not 0 <= self.feather <= 0.3:
            raise UsageError(f"the mask's feather must be 0 % to 30 % of the crop's width, not {self.feather:.0%}")


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """How the mouths are laid into the frames.

    mode: what of the face is laid in.
    edge: where the mouth ends; of mode "mouth".
    color_match: bring the face's colors to those of the footage around the mask.
    """

    mode: BlendMode = "mouth"
    edge: MaskEdge = field(default_factory=MaskEdge)
    color_match: bool = True

    def __post_init__(self) -> None:
        check_choice("blend", self.mode, get_args(BlendMode))
