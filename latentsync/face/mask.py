"""The keep-mask: which part of a crop the model regenerates."""

import json
from pathlib import Path

import numpy as np

from .warp import resize_lanczos


def keep_mask(resolution: int) -> np.ndarray:
    """The mask that the model was trained with.

    Args:
        resolution: side of the square crop in pixels.

    Returns:
        float32 (resolution, resolution): 1 is kept from the source, 0 is regenerated (a U around mouth and jaw);
        in between only where resizing softened the edge.
    """
    stored = json.loads(Path(__file__).with_name("keep_mask.json").read_text(encoding="utf-8"))
    mask = np.full((stored["size"], stored["size"]), 255, np.uint8)
    for y, runs in stored["rows"]:
        for first, last in runs:
            mask[y, first:last] = 0
    return resize_lanczos(mask, resolution).astype(np.float32) / 255
