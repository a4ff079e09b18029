"""Plan the timeline and its windows of frames, and cross-fade the latents of the windows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ..audio.features import AudioFeatures
from ..errors import FaceError
from ..faces.face_track import FaceTrack
from ..models.constants import WINDOW_FRAMES
from ..video.timeline import FpsMode, LengthMode, Timeline, build_timeline, output_rate
from .settings import SamplerSettings


def plan_timeline(
    face_track: FaceTrack, audio_features: AudioFeatures, settings: SamplerSettings, fps: FpsMode, length: LengthMode
) -> Timeline:
    """The timeline of a result, see `video.timeline.build_timeline`.

    Raises:
        FaceError: no frame of the result shows the face and has speech.
        UsageError: the length mode does not support the lengths of video and audio.
    """
    rate = output_rate(face_track.source.rate, fps)
    whole = build_timeline(face_track.source, audio_features.waveform.duration_seconds, rate, length)
    timeline = whole.first(settings.preview_seconds)
    plan_windows(face_track, audio_features, timeline)
    return timeline


def check_speakers(
    tracks: Sequence[FaceTrack],
    spoken: Sequence[AudioFeatures],
    settings: SamplerSettings,
    fps: FpsMode,
    length: LengthMode,
) -> None:
    """Raise the errors of `plan_timeline` for each person who speaks. Call this before the slow stages.

    Args:
        tracks, spoken: face track and audio features of each person.
    """
    for track, features in zip(tracks, spoken, strict=True):
        plan_timeline(track, features, settings, fps, length)


def plan_windows(
    face_track: FaceTrack, audio_features: AudioFeatures, timeline: Timeline, overlap: int = 0
) -> list[range]:
    """Windows of the output frames to sample: frames with a face and with speech. No window crosses a cut.

    Args:
        overlap: frames that neighboring windows share.

    Raises:
        FaceError: there is no such frame.
    """
    shots = np.where(face_track.present, face_track.shots + 1, 0)[list(timeline.source_index)]
    shots[~audio_features.speech_frames(timeline)] = 0
    if timeline.sound_frames is not None:
        shots[timeline.sound_frames :] = 0
    if not shots.any():
        raise FaceError(
            f"{face_track.source.name} does not show the selected face in any of the {timeline.frame_count} output "
            'frames that have speech. Trim the video to the part with the face, use longer audio, change "turns", or '
            "set preview_seconds to 0."
        )
    return list(split_windows(shots.tolist(), overlap=overlap))


def split_windows(shots: Sequence[int], max_frames: int = WINDOW_FRAMES, overlap: int = 0) -> Iterator[range]:
    """Windows of at most `max_frames` consecutive frames of one shot.

    Args:
        shots: shot number of each output frame. 0: skip the frame.
        overlap: frames that a window shares with the previous window, fewer than `max_frames`.
    """
    for shot, group in groupby(range(len(shots)), key=lambda i: shots[i]):
        if shot:
            frames = list(group)
            first, stop = frames[0], frames[-1] + 1
            for start in range(first, max(first + 1, stop - overlap), max_frames - overlap):
                yield range(start, min(start + max_frames, stop))


def crossfade(samples: Iterable[tuple[range, Tensor]]) -> Iterator[tuple[range, Tensor]]:
    """Cross-fade the frames that neighboring windows share, and yield every frame once.

    Args:
        samples: windows in order, and their latents (frames, ...). The function holds one window at a time.
    """
    previous, previous_latents = range(0), None
    for window, latents in samples:
        blended = latents
        if previous_latents is not None:
            num_alone = len(previous) - max(previous.stop - window.start, 0)
            yield previous[:num_alone], previous_latents[:num_alone]
            blended = _lerp_overlap(previous_latents[num_alone:], latents)
        previous, previous_latents = window, blended
    if previous_latents is not None:
        yield previous, previous_latents


def _lerp_overlap(ending: Tensor, latents: Tensor) -> Tensor:
    """Fade linearly from `ending` to the first frames of `latents`. No weight is 0 or 1."""
    overlap = len(ending)
    weight = torch.arange(1, overlap + 1).view(-1, *[1] * (latents.ndim - 1)) / (overlap + 1)
    return torch.cat([torch.lerp(ending, latents[:overlap], weight.to(latents)), latents[overlap:]])
