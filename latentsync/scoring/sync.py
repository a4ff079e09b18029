"""Sync-D, Sync-C and the offset of a talking face, measured with SyncNet v2 as in joonson/syncnet_python.

The module reads each frame once and in order. The module stores 31 distances for each frame, and keeps audio features
only while nearby windows need these features.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise

import numpy as np
import torch
from torch import Tensor

from ..audio.mono import Samples
from ..audio.waveform import SAMPLE_RATE
from ..errors import ScoreError
from ..faces.face_track import runs
from ..models.syncnet import AUDIO_COLUMNS, FEATURES, VIDEO_FRAMES, SyncNet
from ..video.timeline import MODEL_RATE
from .crops import cut, median_filter, squares
from .mfcc import PcmSamples, mfcc

MAX_SHIFT = 15  # frames: offsets from -0.6 to 0.6 s are compared
FRAME_MS = 40
FRAME_SAMPLES = SAMPLE_RATE // MODEL_RATE.numerator
COLUMNS_PER_FRAME = 4  # MFCC columns
BATCH_WINDOWS = 20
DISTANCE_EPS = 1e-6  # added to each difference, as torch.pairwise_distance does

TRUSTED_WINDOWS = 70  # windows of 75 frames (3 s). Padding distorts the score of shorter clips
SMOOTHING_FRAMES = 9  # length of the median filter over the confidence of each frame
WEAK_SHARE = 0.5  # of the clip's confidence
WEAK_FRAMES = 12  # about half a second. Shorter parts are not marked


@dataclass(frozen=True, eq=False)
class SyncScore:
    """Distances between lips and audio.

    distances: float32 (windows, 31): distance between the lips of each window and the audio from 15 frames earlier to
        15 frames later. One window of 0.2 s starts at each frame at 25 fps. NaN in windows without the face.
    """

    distances: np.ndarray

    def __post_init__(self) -> None:
        if self.distances.ndim != 2 or not np.isfinite(self.distances).all(axis=1).any():
            raise ScoreError(
                "SyncNet needs 5 consecutive frames with a face and sound, but this video has fewer. Use a "
                "longer part of the video that shows the face."
            )

    @property
    def window_count(self) -> int:
        """Number of windows with the face."""
        return int(np.isfinite(self.distances[:, 0]).sum())

    @property
    def is_trusted(self) -> bool:
        """Whether enough windows of the clip have a face and sound for a reliable score."""
        return int(np.isfinite(self.distances).all(axis=1).sum()) >= TRUSTED_WINDOWS

    @property
    def mean_distances(self) -> np.ndarray:
        """float64 (31,): mean distance by offset, from 15 frames of early audio to 15 frames of late audio."""
        return np.asarray(np.nanmean(self.distances, axis=0, dtype=np.float64))

    @property
    def offset_frames(self) -> int:
        """How far the audio is ahead of the lips, in frames of 40 ms. Negative: the audio is late."""
        return MAX_SHIFT - int(np.argmin(self.mean_distances))

    @property
    def offset_ms(self) -> int:
        """How far the audio is ahead of the lips, in milliseconds. Negative: the audio is late."""
        return FRAME_MS * self.offset_frames

    @property
    def distance(self) -> float:
        """Sync-D (LSE-D): mean distance at the best offset. Lower is better."""
        return float(self.mean_distances.min())

    @property
    def confidence(self) -> float:
        """Sync-C (LSE-C): median distance of all offsets minus the smallest distance. Higher is better."""
        return float(np.median(self.mean_distances)) - self.distance

    @property
    def confidence_over_time(self) -> np.ndarray:
        """float64 (windows,): confidence at the clip's offset, median filtered. NaN in windows without the face."""
        means = self.mean_distances
        values = np.median(means) - self.distances[:, int(np.argmin(means))].astype(np.float64)
        for run in runs(np.isfinite(values)):
            values[run.start : run.stop] = median_filter(values[run.start : run.stop], SMOOTHING_FRAMES)
        return values

    @property
    def weak_ranges(self) -> list[range]:
        """Ranges of half a second or more with less than half of the clip's confidence. They include pauses."""
        weak = self.confidence_over_time < WEAK_SHARE * self.confidence
        return [run for run in runs(weak) if len(run) >= WEAK_FRAMES]

    @property
    def weak_seconds(self) -> list[tuple[float, float]]:
        """Start and end of each weak range in seconds."""
        return [(run.start * FRAME_MS / 1000, run.stop * FRAME_MS / 1000) for run in self.weak_ranges]

    def __repr__(self) -> str:
        return (
            f"SyncScore(confidence {self.confidence:.2f}, distance {self.distance:.2f}, "
            f"offset {self.offset_frames} frames, {self.window_count} windows)"
        )


def num_windows(num_frames: int, num_samples: int) -> int:
    """Number of windows of a clip. As in the official code, the last window does not count."""
    return max(min(num_frames, num_samples // FRAME_SAMPLES) - VIDEO_FRAMES, 0)


def score_sync(
    frames: Iterable[np.ndarray], boxes: np.ndarray, shots: np.ndarray, samples: Samples, network: SyncNet
) -> SyncScore:
    """Compare a face with audio.

    Args:
        frames: `num_windows` + 4 frames (H, W, 3), RGB with square pixels, at 25 fps.
        boxes: float64 (n, 4), pixels: x0, y0, x1, y1 of the face in each frame. NaN in frames without the face.
        shots: int (n,): number of the shot of each frame. No window spans a cut.
        samples: float32 (m,), 16 kHz, -1 to 1. The sound starts with the first frame.

    Raises:
        ScoreError: no five consecutive frames have the face and audio.
    """
    cuts = frozenset((np.flatnonzero(np.diff(shots)) + 1).tolist())
    has_face, places = np.isfinite(boxes.sum(axis=1)), np.full((len(boxes), 3), np.nan)
    edges = [0, *sorted(cuts), len(boxes)]
    for start, stop in pairwise(edges):
        for run in runs(has_face[start:stop]):
            places[start:stop][run.start : run.stop] = squares(boxes[start:stop][run.start : run.stop])
    crops = (  # the last frame is not compared
        cut(frame, place) if is_shown else None
        for frame, place, is_shown in zip(frames, places, has_face)  # noqa: B905
    )
    return score_crops(crops, num_windows(len(boxes), len(samples)), samples, network, cuts)


def score_crops(
    crops: Iterable[np.ndarray | None],
    count: int,
    samples: Samples,
    network: SyncNet,
    cuts: Collection[int] = (),
) -> SyncScore:
    """Compare face crops with audio, one batch of windows after another.

    Args:
        crops: uint8 (224, 224, 3), BGR, at 25 fps. None in frames without the face. The function reads `count` + 4
            crops.
        count: `num_windows` of the clip.
        samples: float32 (m,), 16 kHz, -1 to 1.
        cuts: the first frame of every shot, except the first shot.

    Raises:
        ScoreError: see `score_sync`.
    """
    distances = np.full((count, 2 * MAX_SHIFT + 1), np.nan, np.float32)
    sound = _SoundFeatures(samples, count, network)
    overlap = VIDEO_FRAMES - 1
    batch: list[np.ndarray] = []
    for i, crop in enumerate(chain(islice(crops, count + overlap), [None])):
        is_interrupted = crop is None or i in cuts
        if is_interrupted or len(batch) == BATCH_WINDOWS + overlap:
            windows = range(i - len(batch), i - overlap)
            if windows:
                distances[windows.start : windows.stop] = _distances(network, batch, sound.around(windows))
            batch = [] if is_interrupted else batch[-overlap:]
        if crop is not None:
            batch.append(crop)
    return SyncScore(distances)


@torch.no_grad()
def _distances(network: SyncNet, crops: Sequence[np.ndarray], sound: Tensor) -> np.ndarray:
    """Distance of each window of crops to 31 audio windows: (n, 31). `sound` (n + 30, 1024): audio features."""
    pixels = torch.from_numpy(np.stack(crops)).to(sound.device)
    video = network.video(pixels.permute(0, 3, 1, 2).float())
    shifted = sound.unfold(0, 2 * MAX_SHIFT + 1, 1)
    return (video[:, :, None] - shifted + DISTANCE_EPS).square().sum(dim=1).sqrt().cpu().numpy()


class _SoundFeatures:
    """Audio features of each window, computed once and kept while windows nearby need them."""

    def __init__(self, samples: Samples, count: int, network: SyncNet) -> None:
        self._pcm = PcmSamples(samples)
        self._count, self._network = count, network
        self._kept: dict[int, Tensor] = {}

    @torch.no_grad()
    def around(self, windows: range) -> Tensor:
        """Features (len(windows) + 30, 1024), with 15 more windows on both sides. Zeros outside the clip."""
        around = range(windows.start - MAX_SHIFT, windows.stop + MAX_SHIFT)
        device = next(self._network.parameters()).device
        self._kept = {i: feature for i, feature in self._kept.items() if i in around}
        new = [i for i in around if 0 <= i < self._count and i not in self._kept]  # consecutive
        if new:
            first = COLUMNS_PER_FRAME * new[0]
            columns = torch.from_numpy(mfcc(self._pcm, first, COLUMNS_PER_FRAME * new[-1] + AUDIO_COLUMNS))
            inputs = columns.unfold(1, AUDIO_COLUMNS, COLUMNS_PER_FRAME).transpose(0, 1).to(device)
            self._kept |= zip(new, self._network.audio(inputs), strict=True)
        outside = torch.zeros(FEATURES, device=device)
        return torch.stack([self._kept.get(i, outside) for i in around])
