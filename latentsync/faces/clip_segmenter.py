"""CLIPSeg as a segmenter: it finds the objects that a few texts describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models.clipseg import INPUT_PX, encode_texts, segment
from ..weights.loader import load_clipseg
from .warp import opencv

PROMPTS = {
    "hand": [2463],
    "microphone": [24643],
    "object in front of the mouth": [14115, 530, 2184, 539, 518, 4932],
}
"""Text -> its tokens in CLIP's vocabulary."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pixels of ImageNet, for RGB in 0..1

Place = Callable[[nn.Module], Callable[[], torch.device]]
"""Takes a network, and returns a function that moves it to its device before each use and returns the device."""


def on_device(device: torch.device | None = None) -> Place:
    """Keep networks on one device. None: torch's default device."""

    def place(network: nn.Module) -> Callable[[], torch.device]:
        target = torch.get_default_device() if device is None else device
        network.to(target)
        return lambda: target

    return place


class ClipSegmenter:
    """CLIPSeg as `segmenters.Segmenter`.

    Args:
        model: the file of the weights.
        place: decides where the network runs.

    Raises:
        DependencyError: transformers cannot be imported.
        WeightsError: the file cannot be read, or is not a CLIPSeg file.
    """

    def __init__(self, model: Path, place: Place) -> None:
        self._network = load_clipseg(model)
        self._load = place(self._network)
        self._texts: Tensor | None = None

    @torch.inference_mode()
    def score(self, view: np.ndarray) -> np.ndarray:
        """See `segmenters.Segmenter.score`."""
        cv2 = opencv()
        device = self._load()
        if self._texts is None:
            self._texts = encode_texts(self._network, list(PROMPTS.values()), device)
        pixels = cv2.resize(view, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        image = torch.from_numpy(((pixels - np.array(MEAN)) / np.array(DEVIATION)).astype(np.float32)).movedim(-1, 0)
        scores = segment(self._network, image.to(device), self._texts.to(device))
        return cv2.resize(scores.amax(dim=0).cpu().numpy(), view.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def close(self) -> None:
        """Do nothing, because no resource is open."""
