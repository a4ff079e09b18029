"""Registry of segmenters, which find objects in front of a face. To add a segmenter, write a file and add a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import check_choice
from ..weights.catalog import CLIPSEG, SELFIE_SEGMENTER, UnverifiedFile, WeightFile
from .clip_segmenter import ClipSegmenter, Place, on_device
from .selfie_segmenter import SelfieSegmenter

NO_SEGMENTER = "off"

LocateAny = Callable[[WeightFile | UnverifiedFile], Path]
"""Finds a model file on the disk, or raises WeightsError."""


class Segmenter(Protocol):
    """A network that separates a face from everything else. `occlusion` checks and refines its result."""

    def score(self, view: np.ndarray) -> np.ndarray:
        """The probability that a pixel does not show the face.

        Args:
            view: uint8 (side, side, 3), RGB: an upright face with some space around it.

        Returns:
            float32 (side, side) in [0, 1]: 0 for skin, beard and teeth of the face, 1 for a hand or a microphone.
        """
        ...

    def close(self) -> None:
        """Free resources."""
        ...


class SegmenterEntry(NamedTuple):
    """A row of the registry: the model file, and a function that opens the segmenter from its path."""

    file: WeightFile | UnverifiedFile
    open: Callable[[Path, Place], Segmenter]


SEGMENTERS: dict[str, SegmenterEntry] = {
    "auto": SegmenterEntry(SELFIE_SEGMENTER, lambda path, _: SelfieSegmenter(path)),
    "fine": SegmenterEntry(CLIPSEG, ClipSegmenter),
}

OCCLUSION = (NO_SEGMENTER, *SEGMENTERS)
"""The values of the setting `occlusion`."""


def segmenter_entry(name: str) -> SegmenterEntry:
    """The registry entry of a segmenter. Raises UsageError if the name is unknown."""
    check_choice("occlusion", name, tuple(SEGMENTERS))
    return SEGMENTERS[name]


def open_segmenter(locate: LocateAny, name: str, place: Place | None = None) -> Segmenter:
    """Open a segmenter. Close the segmenter after use.

    Args:
        locate: finds the segmenter's model file.
        name: a key of `SEGMENTERS`.
        place: decides where a network of torch runs. None: torch's default device.

    Raises:
        UsageError: the name is unknown.
        WeightsError: the model file is missing or unreadable.
        DependencyError: the segmenter's library is not installed.
    """
    entry = segmenter_entry(name)
    return entry.open(locate(entry.file), place or on_device())
