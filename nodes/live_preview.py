"""Live preview of the Sampler: its progress as text, and the newest face as an image."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from comfy.cli_args import LatentPreviewMethod, args

from ..latentsync.progress import duration_text
from .progress import PreviewImage, is_oom, show_text

if TYPE_CHECKING:
    import torch

    from ..latentsync.sampling.sampler import StepOutput
    from .model_handle import ComfyVAE

log = logging.getLogger("latentsync")


class LivePreview:
    """Receives each step of a run, see `progress.with_progress`.

    The preview decodes the last frame of each finished window, unless ComfyUI's previews are off.

    Args:
        heading: text before the progress text.
    """

    def __init__(self, vae: ComfyVAE, heading: str = "") -> None:
        self._vae, self._heading = vae, heading
        self._shows_images = args.preview_method is not LatentPreviewMethod.NoPreviews
        self._started = monotonic()
        self._finished_windows = 0

    def __call__(self, step: StepOutput, done: int, total: int) -> PreviewImage | None:
        position = f"Window {self._finished_windows + 1} of {total // step.num_steps}"
        text = f"{self._heading}{position}, step {step.step} of {step.num_steps}"
        is_last = step.step == step.num_steps
        self._finished_windows += is_last
        if self._finished_windows and done < total:
            text += f", about {duration_text((monotonic() - self._started) / done * (total - done))} left"
        show_text(text)
        return self._decode(step.latents[:, :, -1]) if is_last and self._shows_images else None

    def _decode(self, latents: torch.Tensor) -> PreviewImage | None:
        """Decode one latent (1, 4, r, r) to an upright face. None: out of memory."""
        from PIL import Image

        from ..latentsync.compositing.compositor import upright_crop
        from ..latentsync.models.constants import LATENT_SCALE
        from ..latentsync.video.color import to_uint8

        try:
            if not bool(latents.isfinite().all()):
                return None  # the run is about to stop with an error
            (face,) = self._vae.decode_small(latents / LATENT_SCALE)
        except (RuntimeError, MemoryError) as error:
            if not is_oom(error):
                raise
            log.warning("Out of memory in the live preview. LatentSync continues without the preview.")
            self._shows_images = False
            return None
        return "JPEG", Image.fromarray(to_uint8(upright_crop(face))), args.preview_size
