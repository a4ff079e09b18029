"""Sample all windows of a clip into a lip track."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..audio.features import AudioFeatures, frame_windows
from ..audio.waveform import Waveform
from ..errors import WeightsError
from ..faces import alignment
from ..faces.face_track import FaceTrack
from ..models.constants import WINDOW_FRAMES
from ..models.protocols import VAE, BatchDecoder, Denoiser, VAEDecoder
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

PREFETCH_CROPS = 2 * WINDOW_FRAMES  # read while the previous windows are sampled. 25 MB at 512 pixels
KEPT_GROUPS = 6  # groups of crops that the next windows may share. With an overlap of 12, a window has parts of 4
CFG_BATCH = 2  # batch size of one window with guidance: without audio and with it

FrameGroup = tuple[int, ...]
"""Frames of the original video that the VAE encodes in one call."""


class StepOutput(NamedTuple):
    """One denoising step of one window. `latents` (1, 4, frames, R/8, R/8) are finished when step == num_steps."""

    window: range
    step: int
    num_steps: int
    latents: Tensor


class WindowBatch(NamedTuple):
    """Inputs of the UNet for some windows of equal length, on the CPU.

    windows: the output frames of each window.
    conditioning: (windows, 9, frames, R/8, R/8), see `prepare_conditioning`.
    audio: (windows, frames, 50, 384).
    """

    windows: Sequence[range]
    conditioning: Tensor
    audio: Tensor


class CroppedWindow(NamedTuple):
    """Face crops and audio of one window, for a worker that encodes and denoises it.

    window: the output frames.
    source_frames: the original frame of each output frame.
    crops: uint8 (n, 3, R, R): face crops, one array for each group of original frames that the VAE encodes in one call.
    audio: (frames, 50, 384).
    """

    window: range
    source_frames: Sequence[int]
    crops: Mapping[FrameGroup, Tensor]
    audio: Tensor


class Workers(BatchDecoder, Protocol):
    """Workers, such as other machines, that encode, denoise and decode in place of the networks of this process."""

    def denoise(
        self, windows: Iterator[CroppedWindow], noise: Tensor, settings: SamplerSettings
    ) -> Iterator[StepOutput]:
        """Yield the last step of each window, in the order of the windows.

        Args:
            windows: result of `read_windows`. A window has 13 MB or more at 512 pixels, so take a window only when
                needed.
            noise: (1, 4, 1, R/8, R/8) on the CPU.
        """
        ...


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
        device: device of the UNet and of the sampling. None: torch's default device.
        dtype: dtype of the UNet. The latents are float32.
        batch_limit: largest batch of the UNet, where a window with guidance counts as 2. The default is one window.
        store: see `prepare_windows`.

    Yields:
        Every step of every window, see `num_sampling_steps`. The windows do not depend on each other.

    Raises:
        OutOfMemoryError: one window without guidance does not fit in VRAM or RAM.
    """
    batch_limit = batch_limit or BatchLimit(CFG_BATCH, "the UNet")
    store = store or ConditioningStore(face_track.source.frame_count, dtype)
    noise = sample_noise(settings.seed, resolution)
    batches = prepare_windows(vae, face_track, audio_features, timeline, settings, resolution, store, batch_limit)
    with closing(batches):
        yield from denoise_windows(unet, batches, noise, settings, device=device, dtype=dtype, batch_limit=batch_limit)


def prepare_windows(
    vae: VAE,
    face_track: FaceTrack,
    audio_features: AudioFeatures,
    timeline: Timeline,
    settings: SamplerSettings,
    resolution: int,
    store: ConditioningStore,
    batch_limit: BatchLimit,
) -> Generator[WindowBatch, None, None]:
    """Read and encode the face crops of a clip, one batch of windows after another.

    Args:
        store: store for the same face track, resolution and VAE. The function does not read or encode the stored frames
            again.
        resolution, batch_limit: see `sample_windows`. The limit may change between batches.
    """
    mask = torch.from_numpy(alignment.keep_mask(resolution))
    windows = plan_windows(face_track, audio_features, timeline, settings.overlap)
    log.info("Sampling %d windows of %d output frames at %d px", len(windows), timeline.frame_count, resolution)

    source_frames = partial(_source_frames, timeline)
    missing = store.missing(chain.from_iterable(map(source_frames, windows)))
    with closing(prefetch(_read_crops(face_track, missing, resolution), PREFETCH_CROPS)) as crops:
        for batch in _batches(windows, batch_limit, _passes(settings)):
            for frames in filter(None, map(store.missing, map(source_frames, batch))):  # lazy: windows can share frames
                store.add(frames, prepare_conditioning(_stacked(crops, len(frames)), mask, vae))
            conditioning = torch.stack([store.window(source_frames(window)) for window in batch])
            hidden_states, start = audio_features.hidden_states, audio_features.start
            audio = torch.stack([frame_windows(hidden_states, window, timeline.rate, start) for window in batch])
            yield WindowBatch(batch, conditioning, audio)


def read_windows(
    face_track: FaceTrack,
    audio_features: AudioFeatures,
    timeline: Timeline,
    settings: SamplerSettings,
    resolution: int,
) -> Iterator[CroppedWindow]:
    """Read the face crops of a clip, one window after another, for `Workers`.

    Windows can share frames. The batch size of the encoder can change the last digits of a frame. Each window therefore
    has all crops that `prepare_windows` encodes in one call with a frame of the window. The result of a frame is then
    bit-exact on all workers, and equal to the result in a single process.

    The arguments are the same as in `sample_windows`.
    """
    windows = plan_windows(face_track, audio_features, timeline, settings.overlap)
    log.info("Reading %d windows of %d output frames at %d px", len(windows), timeline.frame_count, resolution)
    group_of: dict[int, FrameGroup] = {}
    for window in windows:
        new = tuple(i for i in dict.fromkeys(_source_frames(timeline, window)) if i not in group_of)
        group_of.update(dict.fromkeys(new, new))
    groups = [list(dict.fromkeys(group_of[i] for i in _source_frames(timeline, window))) for window in windows]
    to_read, last = list[list[FrameGroup]](), deque[FrameGroup](maxlen=KEPT_GROUPS)
    for needed in groups:
        to_read.append([group for group in needed if group not in last])
        last.extend(to_read[-1])
    frames, kept = [i for new in to_read for group in new for i in group], dict[FrameGroup, Tensor]()
    with closing(prefetch(_read_crops(face_track, frames, resolution), PREFETCH_CROPS)) as crops:
        for window, needed, new in zip(windows, groups, to_read, strict=True):
            kept |= {group: _stacked(crops, len(group)) for group in new}
            of_window = {group: kept[group] for group in needed}
            kept = dict(list(kept.items())[-KEPT_GROUPS:])
            audio = frame_windows(audio_features.hidden_states, window, timeline.rate, audio_features.start)
            yield CroppedWindow(window, _source_frames(timeline, window), of_window, audio)


def encode_window(window: CroppedWindow, vae: VAE, dtype: torch.dtype) -> WindowBatch:
    """The inputs of a UNet of `dtype` for one window, equal to the result of `prepare_windows`."""
    store = ConditioningStore(sum(map(len, window.crops)), dtype)
    for frames, crops in window.crops.items():
        store.add(frames, prepare_conditioning(crops, torch.from_numpy(alignment.keep_mask(crops.shape[-1])), vae))
    conditioning = store.window(window.source_frames)
    return WindowBatch([window.window], torch.stack([conditioning]), torch.stack([window.audio]))


def denoise_windows(
    unet: Denoiser,
    batches: Iterator[WindowBatch],
    noise: Tensor,
    settings: SamplerSettings,
    *,
    device: torch.device | str | None,
    dtype: torch.dtype,
    batch_limit: BatchLimit,
) -> Iterator[StepOutput]:
    """Denoise batches of windows in this process. A batch that does not fit in VRAM or RAM runs in parts.

    Arguments, results and errors are the same as in `sample_windows`.
    """
    noise = noise.to(torch.get_default_device() if device is None else device)
    passes = _passes(settings)

    def first_step(batch: WindowBatch, batch_size: int) -> tuple[Sequence[range], Iterator[Tensor]]:
        """Run the first step of the first windows of a batch. Later steps need no more memory than the first step."""
        count = max(batch_size // passes, 1)
        conditioning = batch.conditioning[:count].to(noise.device, dtype)
        audio = batch.audio[:count].to(noise.device, dtype)
        steps = denoise(unet, noise, conditioning, audio, settings, batch_limit)
        return batch.windows[:count], chain([next(steps)], steps)

    for batch in batches:
        rest = batch
        while rest.windows:
            windows, steps = batch_limit.run(partial(first_step, rest), passes * len(rest.windows))
            count = len(windows)
            rest = WindowBatch(rest.windows[count:], rest.conditioning[count:], rest.audio[count:])
            for step, latents in enumerate(steps, start=1):
                of_windows = zip(windows, latents.split(1), strict=True)
                yield from (StepOutput(w, step, settings.num_inference_steps, x) for w, x in of_windows)


def _batches(windows: Sequence[range], batch_limit: BatchLimit, passes: int) -> Iterator[list[range]]:
    """Batches of consecutive windows of the same length, as large as the limit allows when a batch begins."""
    for _, group in groupby(windows, key=len):
        pending = list(group)
        while pending:
            count = max(batch_limit.max_batch // passes, 1)
            yield pending[:count]
            pending = pending[count:]


def _stacked(crops: Iterator[np.ndarray], count: int) -> Tensor:
    """The next crops: uint8 (count, 3, R, R)."""
    return torch.from_numpy(np.stack(list(islice(crops, count))))


def _source_frames(timeline: Timeline, window: range) -> Sequence[int]:
    """Frames of the original video in a window."""
    return timeline.source_index[window.start : window.stop]


def _passes(settings: SamplerSettings) -> int:
    """Batch size of one window."""
    return CFG_BATCH if settings.guidance_scale > 1 else 1


def num_sampling_steps(
    face_track: FaceTrack, audio_features: AudioFeatures, timeline: Timeline, settings: SamplerSettings
) -> int:
    """Number of steps that `sample_windows` yields. Raises FaceError if there are no windows, see `plan_windows`."""
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
    vae: VAEDecoder,
    folder: Path | None = None,
) -> LipTrack:
    """Run the sampling to its end and collect the latents.

    Args:
        steps: result of `sample_windows`.
        waveform: the new audio. The function cuts this audio, or pads it with silence, to the length of the timeline.
        folder: folder of the temporary file of a long clip. None: the system's temporary folder.

    Raises:
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
                    'If this error occurs again, check the model files with "python -m latentsync doctor".'
                )
            latent_index[frames.start : frames.stop] = buffer.append(latents)
        latents = buffer.tensor()
    waveform = waveform.fit_to(timeline.frame_count, timeline.rate)
    return LipTrack(face_track, timeline, latents, latent_index, waveform, vae)
