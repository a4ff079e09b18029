"""Sample all windows of a clip into a lip track."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..audio.features import AudioFeatures, frame_windows
from ..audio.waveform import Waveform
from ..errors import FaceError, WeightsError
from ..faces import alignment
from ..faces.face_track import FaceTrack
from ..models.protocols import VAE, Denoiser
from ..oom import BatchLimit
from ..prefetch import prefetch
from ..tensor_buffer import TensorBuffer
from ..video.timeline import Timeline
from .conditioning import prepare_conditioning, sample_noise
from .denoise import denoise
from .lip_track import LipTrack
from .settings import SamplerSettings
from .windows import crossfade, num_shared, plan_windows

log = logging.getLogger(__name__)

CFG_BATCH = 2  # batch size of one window with guidance: without audio and with it


class StepOutput(NamedTuple):
    """One denoising step of one window. `latents` (1, 4, frames, R/8, R/8) are finished when step == num_steps."""

    window: range
    step: int
    num_steps: int
    latents: Tensor


def sample_windows(
    unet: Denoiser,
    vae: VAE,
    face_track: FaceTrack,
    audio_features: AudioFeatures,
    timeline: Timeline,
    settings: SamplerSettings,
    resolution: int,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    batch_limit: BatchLimit | None = None,
) -> Iterator[StepOutput]:
    """Regenerate the mouths of a clip, one batch of windows after another.

    Args:
        resolution: side of the square face crops in pixels.
        device: of the UNet. Sampling runs there. None: torch's default device.
        dtype: of the UNet. The latents stay float32.
        batch_limit: largest batch of the UNet, where a window with guidance counts as 2. The default is one window.

    Yields:
        every step of every window, see `num_sampling_steps`. Windows are independent of one another.

    Raises:
        OutOfMemoryError: one window without guidance does not fit in memory.
    """
    batch_limit = batch_limit or BatchLimit(CFG_BATCH, "the UNet")
    device = torch.get_default_device() if device is None else torch.device(device)
    noise = sample_noise(settings.seed, resolution).to(device)
    mask = torch.from_numpy(alignment.keep_mask(resolution))
    windows = plan_windows(face_track, audio_features, timeline, settings.overlap)
    log.info("Sampling %d windows of %d output frames at %d px", len(windows), timeline.frame_count, resolution)
    with closing(prefetch(_read_crops(face_track, windows, timeline, resolution))) as crops:
        for batch in _batches(windows, settings, batch_limit):
            conditioning = torch.cat([prepare_conditioning(c, mask, vae) for c in islice(crops, len(batch))])
            audio = torch.stack(
                [
                    frame_windows(audio_features.hidden_states, window, timeline.rate, audio_features.start)
                    for window in batch
                ]
            )
            conditioning, audio = conditioning.to(device, dtype), audio.to(device, dtype)
            for step, latents in enumerate(denoise(unet, noise, conditioning, audio, settings, batch_limit), start=1):
                for window, window_latents in zip(batch, latents.split(1), strict=True):
                    yield StepOutput(window, step, settings.num_inference_steps, window_latents)


def num_sampling_steps(
    face_track: FaceTrack, audio_features: AudioFeatures, timeline: Timeline, settings: SamplerSettings
) -> int:
    """Number of steps that `sample_windows` yields."""
    windows = plan_windows(face_track, audio_features, timeline, settings.overlap)
    return len(windows) * settings.num_inference_steps


def _batches(windows: Sequence[range], settings: SamplerSettings, batch_limit: BatchLimit) -> Iterator[list[range]]:
    """Consecutive windows of one length, as many together as the limit allows when their turn comes, at least one."""
    passes = CFG_BATCH if settings.guidance_scale > 1 else 1
    for _, group in groupby(windows, key=len):
        while batch := list(islice(group, max(batch_limit.max_batch // passes, 1))):
            yield batch


def _read_crops(
    face_track: FaceTrack, windows: Sequence[range], timeline: Timeline, resolution: int
) -> Iterator[Tensor]:
    """The face crops of each window: uint8 (frames, 3, R, R). Frames that windows share are read once."""
    matrices = alignment.track_matrices(face_track, resolution)
    overlaps = [num_shared(*pair) for pair in pairwise([range(0), *windows])]
    new_frames = [window[overlap:] for window, overlap in zip(windows, overlaps, strict=True)]
    indices = [timeline.source_index[i] for new in new_frames for i in new]
    frames = zip(indices, face_track.source.read(indices), strict=True)
    crops: list[np.ndarray] = []
    for new, overlap in zip(new_frames, overlaps, strict=True):
        new_crops = [alignment.crop(frame, matrices[i], resolution) for i, frame in islice(frames, len(new))]
        crops = crops[len(crops) - overlap :] + new_crops
        yield torch.from_numpy(np.stack(crops))


def build_lip_track(
    steps: Iterable[StepOutput],
    face_track: FaceTrack,
    timeline: Timeline,
    waveform: Waveform,
    vae: VAE,
    folder: Path | None = None,
) -> LipTrack:
    """Run the sampling to its end and collect the latents.

    Args:
        steps: from `sample_windows`.
        waveform: the new audio. It is trimmed or padded with silence to the length of the timeline.
        folder: for the latents of a long clip. None is the system's temporary folder.

    Raises:
        FaceError: no frame was sampled.
        WeightsError: the UNet produced NaN or infinite values.
        StorageError: the folder is full or not writable.
    """
    latent_index = np.full(timeline.frame_count, -1, dtype=np.int64)
    samples = ((s.window, s.latents[0].movedim(1, 0).cpu()) for s in steps if s.step == s.num_steps)
    with TensorBuffer(f"the latents of {timeline.frame_count} frames", timeline.frame_count, folder) as buffer:
        for frames, latents in crossfade(samples):
            if not bool(latents.isfinite().all()):
                raise WeightsError(
                    f"Frames {frames.start}-{frames.stop - 1}: the model produced NaN values. Set precision to fp32. "
                    'If it happens again, check the model files with "python -m latentsync doctor".'
                )
            latent_index[frames.start : frames.stop] = buffer.append(latents)
        latents = buffer.tensor()
    if not len(latents):
        raise FaceError(
            f"{face_track.source.name} does not show the selected face in any of the {timeline.frame_count} output "
            "frames that have speech. Trim the video to the part with the face, or use longer audio."
        )
    waveform = waveform.fit_to(timeline.frame_count, timeline.rate)
    return LipTrack(face_track, timeline, latents, latent_index, waveform, vae)
