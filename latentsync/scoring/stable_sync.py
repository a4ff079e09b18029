"""Cosine similarity of lips and audio at each offset, measured with LatentSync's StableSyncNet.

The training of LatentSync used this similarity as a loss, and no paper reports this similarity. Use the similarity to
compare offsets and takes, not to compare models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..audio.mono import Samples
from ..errors import ScoreError
from ..faces.alignment import crop
from ..models.stable_syncnet import MEL_COLUMNS, WINDOW_FRAMES, StableSyncNet
from ..video.timeline import MODEL_RATE
from .sync import FRAME_MS, FRAME_SAMPLES, MAX_SHIFT
from .wav2lip_mel import MEL_RATE, log_mel

CROP_PX = 256


@dataclass(frozen=True, eq=False)
class StableSyncScore:
    """Cosine similarity of lips and audio.

    cosines: float32 (windows, 31): similarity of each window of 16 frames to the audio from 15 frames earlier to 15
        frames later. NaN if this audio would begin before the recording or end after it.
    """

    cosines: np.ndarray

    def __post_init__(self) -> None:
        if not np.isfinite(self.cosines[:, MAX_SHIFT]).any():
            raise ScoreError(
                "StableSyncNet needs 16 consecutive frames with a face and sound, but this video has fewer. "
                "Use a longer part of the video that shows the face."
            )

    @property
    def mean_cosines(self) -> np.ndarray:
        """Mean cosine of each offset, from 15 frames of early audio to 15 frames of late audio: float64 (31,).

        NaN: no audio.
        """
        counts = np.isfinite(self.cosines).sum(axis=0)
        return np.where(counts > 0, np.nansum(self.cosines, axis=0, dtype=np.float64) / np.maximum(counts, 1), np.nan)

    @property
    def offset_frames(self) -> int:
        """How far the audio is ahead of the lips, in frames of 40 ms. Negative: the audio is late."""
        return MAX_SHIFT - int(np.nanargmax(self.mean_cosines))

    @property
    def offset_ms(self) -> int:
        """The offset in milliseconds."""
        return FRAME_MS * self.offset_frames

    @property
    def cosine(self) -> float:
        """Mean cosine at offset 0. Higher is better."""
        return float(self.mean_cosines[MAX_SHIFT])

    @property
    def best_cosine(self) -> float:
        """Mean cosine at the best offset."""
        return float(np.nanmax(self.mean_cosines))


@torch.no_grad()
def score_stable_sync(
    frames: Iterable[np.ndarray], matrices: np.ndarray, shots: np.ndarray, samples: Samples, network: StableSyncNet
) -> StableSyncScore:
    """Compare consecutive windows of 16 frames with the audio around them.

    Args:
        frames: (H, W, 3), RGB, at 25 fps.
        matrices: float64 (n, 2, 3): frame to crop at 256 pixels, see `faces.alignment.track_matrices`. NaN without the
            face. The function skips windows with such a frame.
        shots: int (n,): number of the shot of each frame. No window spans a cut.
        samples: float32 (m,), 16 kHz, -1 to 1.

    Raises:
        ScoreError: no window shows the face in all frames, or the audio is too short.
    """
    device = next(network.parameters()).device
    rows: list[np.ndarray] = []
    crops: list[np.ndarray] = []
    for i, frame in enumerate(frames):
        if i and shots[i] != shots[i - 1]:
            crops = []
        if not np.isfinite(matrices[i]).all():
            crops = []
            continue
        lower_half = crop(frame, matrices[i], CROP_PX)[:, CROP_PX // 2 :]
        crops.append(lower_half)
        if len(crops) == WINDOW_FRAMES:
            pixels = torch.from_numpy(np.concatenate(crops)).to(device).float() / 127.5 - 1
            rows.append(_cosines(network, pixels[None], i + 1 - WINDOW_FRAMES, samples))
            crops = []
    return StableSyncScore(np.stack(rows) if rows else np.full((1, 2 * MAX_SHIFT + 1), np.nan, np.float32))


def _cosines(network: StableSyncNet, pixels: Tensor, window: int, samples: Samples) -> np.ndarray:
    """Cosine of the window that starts at a frame, with the audio at 31 offsets: float32 (31,)."""
    starts = [window + shift for shift in range(-MAX_SHIFT, MAX_SHIFT + 1)]
    known = [s >= 0 and (s + WINDOW_FRAMES) * FRAME_SAMPLES <= len(samples) for s in starts]
    cosines = np.full(len(starts), np.nan, np.float32)
    if any(known):
        columns = [
            MEL_RATE * start // MODEL_RATE.numerator for start, is_known in zip(starts, known, strict=True) if is_known
        ]
        mel = torch.from_numpy(log_mel(samples, columns[0], columns[-1] + MEL_COLUMNS)).to(pixels.device)
        inputs = torch.stack([mel[:, c - columns[0] : c - columns[0] + MEL_COLUMNS] for c in columns])
        cosines[known] = (network.visual(pixels) @ network.audio(inputs).T)[0].cpu().numpy()
    return cosines
