"""The stages in order, as generators: each yields finished pieces, so that its caller shows progress and can stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import audio, sampling
from .ahead import ahead
from .errors import FaceError, WeightsError
from .face import align
from .face.mask import keep_mask
from .room import Room
from .spec import LATENT_STRIDE
from .store import TensorStore
from .timeline import Timeline, windows
from .types import AudioFeatures, Codec, FaceTrack, LipTrack, SamplerSettings, Waveform

PASSES = 2  # of a guided window: without its audio and with it


class Sampled(NamedTuple):
    """One denoising step of one window. `latents` (1, 4, n, R/8, R/8) are finished when step == steps."""

    window: range
    step: int
    steps: int
    latents: torch.Tensor


def plan(track: FaceTrack, features: AudioFeatures, timeline: Timeline, overlap: int = 0) -> list[range]:
    """Windows of output frames in which the face is there and speaks, none of them across a cut.

    Args:
        overlap: frames that neighbouring windows share.
    """
    shown = np.where(track.present, track.shots + 1, 0)[list(timeline.source_index)]
    shown[~features.spoken_in(timeline)] = 0
    if timeline.sound_frames is not None:
        shown[timeline.sound_frames :] = 0
    return list(windows(shown.tolist(), overlap=overlap))


def sample(
    unet: sampling.Denoiser,
    codec: Codec,
    track: FaceTrack,
    features: AudioFeatures,
    timeline: Timeline,
    settings: SamplerSettings,
    noise: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    room: Room | None = None,
) -> Iterator[Sampled]:
    """Regenerate the mouths of a clip, one batch of windows after the other.

    Args:
        noise: float32 (1, 4, 1, R/8, R/8), repeated over every frame of the clip; sampling runs on its device.
        dtype: what the UNet computes in; the sampler's own arithmetic stays in the noise's.
        room: for how many clips at once, a guided window being two; by default one window.

    Yields:
        every step of every window; windows are independent of one another.

    Raises:
        RoomError: there is no room for one clip.
    """
    room = clips_at_once(PASSES) if room is None else room
    resolution = noise.shape[-1] * LATENT_STRIDE
    keep = torch.from_numpy(keep_mask(resolution))
    chosen = plan(track, features, timeline, settings.overlap)
    with closing(ahead(_crops(track, chosen, timeline, resolution))) as crops:
        for batch in _batches(chosen, lambda: room.most // (PASSES if settings.guidance > 1 else 1)):
            pictures = [torch.from_numpy(own) for own in islice(crops, len(batch))]
            conditioning = torch.cat([sampling.condition(own, keep, codec) for own in pictures])
            heard = torch.stack([audio.windows(features.states, own, timeline.rate, features.first) for own in batch])
            given = conditioning.to(noise.device, dtype), heard.to(noise.device, dtype)
            for step, latents in enumerate(sampling.denoise(unet, noise, *given, settings, room), start=1):
                each = zip(batch, latents.split(1), strict=True)
                yield from (Sampled(window, step, settings.steps, own) for window, own in each)


def clips_at_once(most: int) -> Room:
    """Room for `most` clips in the UNet."""
    return Room(most, "clips in the UNet")


def _batches(chosen: Sequence[range], most: Callable[[], int]) -> Iterator[list[range]]:
    """Consecutive windows of one length, as many together as there is room for by then, at least one."""
    for _, alike in groupby(chosen, key=len):
        while batch := list(islice(alike, max(most(), 1))):
            yield batch


def _crops(track: FaceTrack, chosen: Sequence[range], timeline: Timeline, resolution: int) -> Iterator[np.ndarray]:
    """The crops of each window: uint8 (frames, 3, R, R). A frame that windows share is read once."""
    matrices = align.track_matrices(track, resolution)
    shared = [_shared(*pair) for pair in pairwise([range(0), *chosen])]
    indices = [timeline.source_index[i] for window, held in zip(chosen, shared, strict=True) for i in window[held:]]
    frames = zip(indices, track.source.read(indices), strict=True)
    crops: list[np.ndarray] = []
    for window, held in zip(chosen, shared, strict=True):
        added = [align.crop(frame, matrices[i], resolution) for i, frame in islice(frames, len(window) - held)]
        crops = crops[len(crops) - held :] + added
        yield np.stack(crops)


def _shared(before: range, window: range) -> int:
    """How many frames a window begins with that the one before it ends with."""
    return max(before.stop - window.start, 0)


def collect(
    samples: Iterable[Sampled],
    track: FaceTrack,
    timeline: Timeline,
    waveform: Waveform,
    codec: Codec,
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
    slots = np.full(timeline.frame_count, -1, dtype=np.int64)
    made = ((one.window, one.latents[0].movedim(1, 0).cpu()) for one in samples if one.step == one.steps)
    with TensorStore(f"the latents of {timeline.frame_count} frames", timeline.frame_count, folder) as store:
        for frames, latents in blended(made):
            _check_numbers(frames, latents)
            slots[frames.start : frames.stop] = store.append(latents)
        latents = store.finished()
    if not len(latents):
        raise FaceError(
            f"{track.source.name}: the face is in none of the frames that the speech covers "
            f"({timeline.frame_count} output frames). Trim the video to where the face is, or use a longer recording."
        )
    return LipTrack(track, timeline, latents, slots, timeline.fit(waveform), codec)


def _check_numbers(frames: range, latents: torch.Tensor) -> None:
    if not bool(latents.isfinite().all()):
        raise WeightsError(
            f"output frames {frames.start} to {frames.stop - 1}: what the network made are not numbers. Its weights "
            "are damaged (`python -m latentsync doctor` checks them), or too coarse here: choose precision fp32"
        )


def blended(made: Iterable[tuple[range, torch.Tensor]]) -> Iterator[tuple[range, torch.Tensor]]:
    """Each frame's latents once, of windows in order; where two share frames, one passes evenly into the other.

    Args:
        made: windows and their latents (frames, ...); one is held back at a time.
    """
    before, held = range(0), None
    for window, latents in made:
        given = latents
        if held is not None:
            alone = len(before) - _shared(before, window)
            yield before[:alone], held[:alone]
            given = _passing(held[alone:], latents)
        before, held = window, given
    if held is not None:
        yield before, held


def _passing(ending: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Latents whose first frames come evenly out of the ones that end; none of either is left out of a frame."""
    shared = len(ending)
    weight = torch.arange(1, shared + 1).view(-1, *[1] * (latents.ndim - 1)) / (shared + 1)
    return torch.cat([torch.lerp(ending, latents[:shared], weight.to(latents)), latents[shared:]])
