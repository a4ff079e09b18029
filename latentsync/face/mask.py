"""The keep-mask: which part of a crop the model regenerates."""

import json
from pathlib import Path

import numpy as np

from .align import crop_size
from .warp import opencv, resize_lanczos


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


def mouth_weight(resolution: int, grow: float, feather: float) -> np.ndarray:
    """How much of the new face shows at each pixel of a crop: nothing outside the mask.

    Args:
        resolution: side of the square crop in pixels.
        grow: how far the mask is widened, in crop widths; negative: narrowed.
        feather: over how much of its inner edge the mask fades, in crop widths.

    Returns:
        float32, height and width of `crop_size(resolution)`, in [0, 1]; 0 at the crop's own edge.
    """
    cv2 = opencv()
    width, height = crop_size(resolution)
    kept = cv2.resize(keep_mask(resolution), (width, height), interpolation=cv2.INTER_LINEAR)
    made = (kept < 0.5).astype(np.uint8)
    beyond_px = _distance(made) - _distance(1 - made) + grow * width
    within_crop_px = _distance(np.pad(np.ones((height, width), np.uint8), 1))[1:-1, 1:-1] - 1
    depth = np.minimum(beyond_px, within_crop_px) / max(feather * width, 1)
    ramp = depth.clip(0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def _distance(pixels: np.ndarray) -> np.ndarray:
    """How far each pixel that is not 0 lies from one that is, in pixels."""
    cv2 = opencv()
    return cv2.distanceTransform(pixels, cv2.DIST_L2, 5)
