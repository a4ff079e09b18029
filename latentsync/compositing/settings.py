"""Settings of the compositor, and the registry of blend modes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from ..errors import UsageError, check_choice
from .box_blend import BoxBlender
from .mouth_blend import MouthBlender


class Blender(Protocol):
    """A blend mode: it pastes the faces of one speaker into the frames.

    To add a mode, write a class with these methods and add one row to `BLENDERS`.
    """

    def __init__(self, resolution: int, settings: BlendSettings) -> None:
        """`resolution` is the side of the square model crop in pixels."""
        ...

    def prepare(self, faces: list[torch.Tensor], frames: list[np.ndarray], matrices: np.ndarray) -> list[torch.Tensor]:
        """Process the faces of a few frames before they are pasted.

        Args:
            faces: (3, h, w) in [-1, 1], RGB. Decoded faces are (3, resolution, resolution).
            frames: (H, W, 3), the original frames, one for each face. uint8, uint16, or float32 in [0, 1].
            matrices: (faces, 2, 3), frame pixels to the crop of `crop_size(resolution)`.
        """
        ...

    def paste(
        self, frame: np.ndarray, face: torch.Tensor, matrix: np.ndarray, opacity: float | np.ndarray = 1.0
    ) -> np.ndarray:
        """Return a copy of `frame` with a prepared face. `opacity` is one number or float32 (H, W), in [0, 1]."""
        ...


BLENDERS: dict[str, type[Blender]] = {"mouth": MouthBlender, "full crop": BoxBlender}


@dataclass(frozen=True, slots=True)
class MaskEdge:
    """The edge of the pasted mouth, in widths of the crop.

    grow: expansion of the model's training mask, -0.2 to 0.2. A negative value shrinks the mask.
    feather: width of the soft edge inside the mask, 0 to 0.3.
    """

    grow: float = 0.0
    feather: float = 0.08

    def __post_init__(self) -> None:
        if not -0.2 <= self.grow <= 0.2:
            raise UsageError(f'"mask_expand" cannot be {100 * self.grow:g}. Choose a value from -20 to 20 percent.')
        if not 0 <= self.feather <= 0.3:
            raise UsageError(f'"mask_feather" cannot be {100 * self.feather:g}. Choose a value from 0 to 30 percent.')


@dataclass(frozen=True, slots=True)
class BlendSettings:
    """Settings for pasting the faces into the frames.

    mode: a key of `BLENDERS`. "mouth" pastes only the mouth area. "full crop" pastes the whole crop like the official
        code.
    edge: the edge of the mouth. Only the mode "mouth" uses this setting.
    color_match: match the face's colors to the frame around the mask.
    match_texture: match the mouth's sharpness and grain to the skin above the mouth.
    """

    mode: str = "mouth"
    edge: MaskEdge = field(default_factory=MaskEdge)
    color_match: bool = True
    match_texture: bool = False

    def __post_init__(self) -> None:
        check_choice("paste_mode", self.mode, tuple(BLENDERS))
