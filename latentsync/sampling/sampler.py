"""Sample all windows of a clip into a lip track."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..audio.features import AudioFeatures, frame_windows
from ..audio.waveform import Waveform
from ..errors import FaceError, WeightsError
from ..faces import alignment
from ..faces.alignment import keep_mask
from ..faces.face_track import FaceTrack
from ..models import protocols
from ..models.constants import LATENT_STRIDE
from ..models.protocols import VAE
from ..oom import BatchLimit
from ..prefetch import prefetch
from ..tensor_buffer import TensorBuffer
from ..video.timeline import Timeline
from . import denoise
from .conditioning import prepare_conditioning
from .lip_track import LipTrack
from .settings import SamplerSettings
from .windows import crossfade, num_shared, plan_windows

PASSES = 2  # of a do_cfg window: without its audio and with it


class StepOutput(NamedTuple):
    """One denoising step of one window. `latents` (1, 4, n, R/8, R/8) are finished when step == steps."""

    window: range
    step: int
    steps: int
    latents: torch.Tensor


def sample_windows(
    unet: protocols.Denoiser,
    vae: VAE,
    track: FaceTrack,
    features: AudioFeatures,
    timeline: Timeline,
    settings: SamplerSettings,
    noise: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    room: BatchLimit | None = None,
) -> Iterator[StepOutput]:
    """Regenerate the mouths of a clip, one batch of windows after the other.

    Args:
        noise: float32 (1, 4, 1, R/8, R/8), repeated over every frame of the clip; sampling runs on its device.
        dtype: what the UNet computes in; the sampler's own arithmetic stays in the noise's.
        room: for how many clips at once, a do_cfg window being two; by default one window.

    Yields:
        every step of every window; windows are independent of one another.

    Raises:
        RoomError: there is no room for one clip.
    """
    room = clip_limit(PASSES) if room is None else room
    resolution = noise.shape[-1] * LATENT_STRIDE
    keep = torch.from_numpy(keep_mask(resolution))
    chosen = plan_windows(track, features, timeline, settings.overlap)
    with closing(prefetch(_crops(track, chosen, timeline, resolution))) as crops:
        for batch in _batches(chosen, lambda: room.max_batch // (PASSES if settings.guidance_scale > 1 else 1)):
            pictures = [torch.from_numpy(own) for own in islice(crops, len(batch))]
            conditioning = torch.cat([prepare_conditioning(own, keep, vae) for own in pictures])
            audio_kv = torch.stack(
                [frame_windows(features.hidden_states, own, timeline.rate, features.start) for own in batch]
            )
            given = conditioning.to(noise.device, dtype), audio_kv.to(noise.device, dtype)
            for step, latents in enumerate(denoise.denoise(unet, noise, *given, settings, room), start=1):
                each = zip(batch, latents.split(1), strict=True)
                yield from (StepOutput(window, step, settings.num_inference_steps, own) for window, own in each)


def clip_limit(most: int) -> BatchLimit:
    """Room for `most` clips in the UNet."""
    return BatchLimit(most, "the UNet")


def _batches(chosen: Sequence[range], most: Callable[[], int]) -> Iterator[list[range]]:
    """Consecutive windows of one length, as many together as there is room for by then, at least one."""
    for _, alike in groupby(chosen, key=len):
        while batch := list(islice(alike, max(most(), 1))):
            yield batch


def _crops(track: FaceTrack, chosen: Sequence[range], timeline: Timeline, resolution: int) -> Iterator[np.ndarray]:
    """The crops of each window: uint8 (frames, 3, R, R). A frame that windows share is read once."""
    matrices = alignment.track_matrices(track, resolution)
    shared = [num_shared(*pair) for pair in pairwise([range(0), *chosen])]
    indices = [timeline.source_index[i] for window, held in zip(chosen, shared, strict=True) for i in window[held:]]
    frames = zip(indices, track.source.read(indices), strict=True)
    crops: list[np.ndarray] = []
    for window, held in zip(chosen, shared, strict=True):
        added = [alignment.crop(frame, matrices[i], resolution) for i, frame in islice(frames, len(window) - held)]
        crops = crops[len(crops) - held :] + added
        yield np.stack(crops)


def build_lip_track(
    samples: Iterable[StepOutput],
    track: FaceTrack,
    timeline: Timeline,
    waveform: Waveform,
    vae: VAE,
    folder: Path | None = None,
) -> LipTrack:
    """Run the sampling to its end and keep its latents.

    Args:
        waveform: the new sound; it is cut, or filled up with silence, where it does not last as many frames.
        folder: for the latents of a long clip; None is the system's folder for temporary files.

    Raises:
        FaceError: the face is in no frame that the output shows.
        WeightsError: the network gave no numbers.
        StorageError: the folder has no room.
    """
    latent_index = np.full(timeline.frame_count, -1, dtype=np.int64)
    made = ((one.window, one.latents[0].movedim(1, 0).cpu()) for one in samples if one.step == one.steps)
    with TensorBuffer(f"the latents of {timeline.frame_count} frames", timeline.frame_count, folder) as store:
        for frames, latents in crossfade(made):
            _check_finite(frames, latents)
            latent_index[frames.start : frames.stop] = store.append(latents)
        latents = store.tensor()
    if not len(latents):
        raise FaceError(
            f"{track.source.name}: the face is in none of the frames that the speech covers "
            f"({timeline.frame_count} output frames). Trim the video to where the face is, or use a longer recording."
        )
    return LipTrack(track, timeline, latents, latent_index, waveform.fit_to(timeline.frame_count, timeline.rate), vae)


def _check_finite(frames: range, latents: torch.Tensor) -> None:
    if not bool(latents.isfinite().all()):
        raise WeightsError(
            f"output frames {frames.start} to {frames.stop - 1}: what the network made are not numbers. Its weights "
            "are damaged (`python -m latentsync doctor` checks them), or too coarse here: choose precision fp32"
        )
