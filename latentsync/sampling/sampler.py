"""Sample all windows of a clip into a lip track."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain, groupby, islice
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
from ..models.constants import WINDOW_FRAMES
from ..models.protocols import VAE, Denoiser
from ..oom import BatchLimit
from ..prefetch import prefetch
from ..tensor_buffer import TensorBuffer
from ..video.timeline import Timeline
from .conditioning import ConditioningStore, prepare_conditioning, sample_noise
from .denoise import denoise
from .lip_track import LipTrack
from .settings import SamplerSettings
from .windows import crossfade, plan_windows

log = logging.getLogger(__name__)

PREFETCH_CROPS = 2 * WINDOW_FRAMES  # read while the windows before them are sampled; 25 MB at 512 pixels
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
    store: ConditioningStore | None = None,
) -> Iterator[StepOutput]:
    """Regenerate the mouths of a clip, one batch of windows after another.

    Args:
        resolution: side of the square face crops in pixels.
        device: of the UNet. Sampling runs there. None: torch's default device.
        dtype: of the UNet. The latents stay float32.
        batch_limit: largest batch of the UNet, where a window with guidance counts as 2. The default is one window.
        store: of the same face track, resolution and VAE. Frames that it holds are neither read nor encoded again.

    Yields:
        every step of every window, see `num_sampling_steps`. Windows are independent of one another.

    Raises:
        OutOfMemoryError: one window without guidance does not fit in memory.
    """
    batch_limit = batch_limit or BatchLimit(CFG_BATCH, "the UNet")
    device = torch.get_default_device() if device is None else torch.device(device)
    store = store or ConditioningStore(face_track.source.frame_count, dtype)
    noise = sample_noise(settings.seed, resolution).to(device)
    mask = torch.from_numpy(alignment.keep_mask(resolution))
    windows = plan_windows(face_track, audio_features, timeline, settings.overlap)
    passes = CFG_BATCH if settings.guidance_scale > 1 else 1
    log.info("Sampling %d windows of %d output frames at %d px", len(windows), timeline.frame_count, resolution)

    def source_frames(window: range) -> Sequence[int]:
        return timeline.source_index[window.start : window.stop]

    def encode(frames: Sequence[int], crops: Iterator[np.ndarray]) -> None:
        if frames:
            new_crops = torch.from_numpy(np.stack(list(islice(crops, len(frames)))))
            store.add(frames, prepare_conditioning(new_crops, mask, vae))

    def first_step(batch_size: int) -> tuple[list[range], Iterator[Tensor]]:
        """Begins a batch of the next windows: at its first step, everything that it needs is in memory."""
        batch = pending[: max(batch_size // passes, 1)]
        conditioning = torch.stack([store.window(source_frames(window)) for window in batch])
        hidden_states, start = audio_features.hidden_states, audio_features.start
        audio = torch.stack([frame_windows(hidden_states, window, timeline.rate, start) for window in batch])
        conditioning, audio = conditioning.to(device, dtype), audio.to(device, dtype)
        steps = denoise(unet, noise, conditioning, audio, settings, batch_limit)
        return batch, chain([next(steps)], steps)

    missing = store.missing(chain.from_iterable(map(source_frames, windows)))
    with closing(prefetch(_read_crops(face_track, missing, resolution), PREFETCH_CROPS)) as crops:
        for _, group in groupby(windows, key=len):
            pending = list(group)
            while pending:
                for window in pending[: max(batch_limit.max_batch // passes, 1)]:
                    encode(store.missing(source_frames(window)), crops)
                batch, steps = batch_limit.run(first_step, passes * len(pending))
                pending = pending[len(batch) :]
                for step, latents in enumerate(steps, start=1):
                    of_windows = zip(batch, latents.split(1), strict=True)
                    yield from (StepOutput(w, step, settings.num_inference_steps, x) for w, x in of_windows)


def num_sampling_steps(
    face_track: FaceTrack, audio_features: AudioFeatures, timeline: Timeline, settings: SamplerSettings
) -> int:
    """Number of steps that `sample_windows` yields."""
    windows = plan_windows(face_track, audio_features, timeline, settings.overlap)
    return len(windows) * settings.num_inference_steps


def _read_crops(face_track: FaceTrack, frames: Sequence[int], resolution: int) -> Iterator[np.ndarray]:
    """The face crops of some frames of the original video: uint8 (3, R, R)."""
    matrices = alignment.track_matrices(face_track, resolution)
    for i, frame in zip(frames, face_track.source.read(frames), strict=True):
        yield alignment.crop(frame, matrices[i], resolution)


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
            "frames that have speech. Trim the video to the part with the face, use longer audio, or set "
            "preview_seconds to 0."
        )
    waveform = waveform.fit_to(timeline.frame_count, timeline.rate)
    return LipTrack(face_track, timeline, latents, latent_index, waveform, vae)
