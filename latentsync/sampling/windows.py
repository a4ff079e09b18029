"""Plan windows of frames, and cross-fade their latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..audio.features import AudioFeatures
from ..faces.face_track import FaceTrack
from ..models.constants import WINDOW_FRAMES
from ..video.timeline import Timeline

if TYPE_CHECKING:
    pass


def split_windows(active: Sequence[int], longest: int = WINDOW_FRAMES, overlap: int = 0) -> Iterator[range]:
    """Half-open ranges of consecutive output frames that are sampled together, each of at most `longest` frames.

    Args:
        active: per output frame 0 (or False) where nothing is sampled; where it changes, so does the window.
        overlap: frames that a window has in common with the one before it, less than `longest`.
    """
    for is_active, run in groupby(range(len(active)), key=lambda i: int(active[i])):
        if is_active:
            frames = list(run)
            end = frames[-1] + 1
            for first in range(frames[0], max(frames[0] + 1, end - overlap), longest - overlap):
                yield range(first, min(first + longest, end))


def plan_windows(track: FaceTrack, features: AudioFeatures, timeline: Timeline, overlap: int = 0) -> list[range]:
    """Windows of output frames in which the face is there and speaks, none of them across a cut.

    Args:
        overlap: frames that neighbouring windows share.
    """
    shown = np.where(track.present, track.shots + 1, 0)[list(timeline.source_index)]
    shown[~features.speech_frames(timeline)] = 0
    if timeline.sound_frames is not None:
        shown[timeline.sound_frames :] = 0
    return list(split_windows(shown.tolist(), overlap=overlap))


def num_shared(before: range, window: range) -> int:
    """How many frames a window begins with that the one before it ends with."""
    return max(before.stop - window.start, 0)


def crossfade(made: Iterable[tuple[range, torch.Tensor]]) -> Iterator[tuple[range, torch.Tensor]]:
    """Each frame's latents once, of windows in order; where two share frames, one passes evenly into the other.

    Args:
        made: windows and their latents (frames, ...); one is held back at a time.
    """
    before, held = range(0), None
    for window, latents in made:
        given = latents
        if held is not None:
            alone = len(before) - num_shared(before, window)
            yield before[:alone], held[:alone]
            given = _lerp_overlap(held[alone:], latents)
        before, held = window, given
    if held is not None:
        yield before, held


def _lerp_overlap(ending: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Latents whose first frames come evenly out of the ones that end; none of either is left out of a frame."""
    shared = len(ending)
    weight = torch.arange(1, shared + 1).view(-1, *[1] * (latents.ndim - 1)) / (shared + 1)
    return torch.cat([torch.lerp(ending, latents[:shared], weight.to(latents)), latents[shared:]])
