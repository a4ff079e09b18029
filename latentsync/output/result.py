"""The result of a run: lip tracks on one video. Compositing and encoding start when you ask for frames or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import repeat
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

import numpy as np

from ..audio.background import BackgroundSettings, add_background
from ..audio.waveform import Waveform, mix
from ..compositing.compositor import Composite, composite, shared_timeline
from ..compositing.settings import BlendSettings
from ..errors import StorageError, UsageError, cannot_write
from ..progress import ShowProgress, shown
from ..sampling.lip_track import LipTrack, has_new_lips
from ..scoring.score import Score, ScoredFrames, score_track
from ..video.color import to_float32
from ..video.frame_source import FrameSource
from ..video.timeline import MODEL_RATE, Timeline
from .formats import ALPHA_FORMATS, Format, format_for_suffix, format_named
from .run_record import tags as record_tags
from .video_writer import VideoWriter

if TYPE_CHECKING:
    from ..models.syncnet import SyncNet
    from .run_record import RunRecord

log = logging.getLogger(__name__)

CRF_BYTES_PER_PIXEL = 0.003  # for a still picture. Motion takes ten times as many
LOSSLESS_BYTES_PER_PIXEL = 0.1  # for a still picture


@dataclass(frozen=True, eq=False)
class LipSyncResult:
    """The new mouths of one or more speakers of one video.

    speakers: lip tracks of the speakers, all on the same video.
    blend: settings for pasting the mouths into the frames.
    protect: float (1 or video frames, H, W) in [0, 1]: 1 keeps the pixel of the original video.
    audio: the sound of the finished video. None mixes the recordings of all speakers.
    background: sound to mix under `audio`, with `background_settings`.
    """

    speakers: tuple[LipTrack, ...]
    blend: BlendSettings = field(default_factory=BlendSettings)
    protect: np.ndarray | None = None
    audio: Waveform | None = None
    background: Waveform | None = None
    background_settings: BackgroundSettings = field(default_factory=BackgroundSettings)

    @property
    def source(self) -> FrameSource:
        return self.speakers[0].face_track.source

    def alpha(self) -> Iterator[np.ndarray]:
        """The alpha of each output frame: float32 (H, W) in [0, 1]. The source must have an alpha channel."""
        return self.source.read_alpha(self.timeline.source_index)

    @property
    def timeline(self) -> Timeline:
        """The longest timeline of the speakers. Raises UsageError if the timelines do not match."""
        return shared_timeline(self.speakers)

    @property
    def fps(self) -> Fraction:
        return self.timeline.rate

    @property
    def frame_count(self) -> int:
        return self.timeline.frame_count

    @property
    def synced_frame_count(self) -> int:
        """Number of output frames with a new mouth of at least one speaker."""
        return int(has_new_lips(self.speakers, self.frame_count).sum())

    @cached_property
    def waveform(self) -> Waveform:
        """The sound of the finished video, exactly as long as its frames."""
        waveform = self.audio or mix([lips.waveform for lips in self.speakers])
        waveform = waveform.fit_to(self.frame_count, self.fps)
        if self.background is None:
            return waveform
        return add_background(waveform, self.background, self.background_settings)

    def composite(self, *, progress: ShowProgress | bool = False) -> Iterator[Composite]:
        """The finished frames in order, each with its original frame. The VAE decodes faces while you read the frames.

        Raises:
            UsageError: the speakers or the mask do not fit the video.
            MediaError: the VAE produced NaN.
        """
        return shown(composite(self.speakers, self.blend, self.protect), "video", self.frame_count, progress)

    def frames(self, *, progress: ShowProgress | bool = False) -> Iterator[np.ndarray]:
        """The finished frames: RGB (H, W, 3) in the dtype of the original video. Raises the errors of `composite`."""
        return (output.frame for output in self.composite(progress=progress))

    def save(
        self,
        path: str | Path,
        *,
        format: str | Format | None = None,
        crf: int = 18,
        tags: Mapping[str, str] | None = None,
        record: RunRecord | None = None,
        progress: ShowProgress | bool = False,
    ) -> Path:
        """Composite and encode the video, frame by frame. The file gets its final name when it is complete.

        Args:
            path: the finished video, which replaces an existing file.
            format: a name of `formats.FORMATS`. None chooses by the suffix of `path`.
            crf: quality from 0 to 51. A lower value is better. Formats without crf ignore it.
            tags: metadata of the file, in addition to the tags of the record.
            record: the run record to complete with the settings and the warnings of this video.
            progress: True draws a bar on stderr, see `progress.ShowProgress`.

        Raises:
            UsageError: the format does not exist, or does not support the frames.
            AudioError: the audio codec does not support the number of channels.
            StorageError: the folder has too little space.
            MediaError: the file cannot be written.
        """
        path = Path(path)
        if format is None:
            format = format_for_suffix(path.suffix)
        elif isinstance(format, str):
            format = format_named(format)
        check_free_space(path.absolute().parent, least_bytes(self.source, self.waveform, format))
        if record is not None:
            record.describe(self.speakers, self.blend)
            record.settings |= {"format": format.name, "crf": crf}
            if self.background is not None:
                mixed = self.background_settings
                record.settings |= {"background_gain_db": mixed.gain_db, "ducking_db": mixed.ducking_db}
        keeps_alpha = self.source.has_alpha and bool(format.alpha_pix_fmt)
        alpha: Iterator[np.ndarray | None] = self.alpha() if keeps_alpha else repeat(None, self.frame_count)
        log.info("Writing %s as %s: %d frames at %s fps", path, format.name, self.frame_count, self.fps)
        all_tags = {**(tags or {}), **({} if record is None else record_tags(record))}
        with _open_writer(path, self.source, self.fps, format, crf, self.waveform, all_tags) as writer:
            for frame, channel in zip(self.frames(progress=progress), alpha, strict=True):
                writer.write(frame if channel is None else np.dstack([to_float32(frame), channel]))
        if record is not None:
            record.notes.extend(self.warnings(format))
        return path

    def score(self, syncnet: SyncNet, *, speaker: int = 1, progress: ShowProgress | bool = False) -> Score:
        """Score how well the new lips of one speaker fit their recording, before encoding.

        The position of the face comes from the original video, so the score detects no face. The score does not measure
        the mouth opening, and ignores frames that keep the original lips.

        Args:
            syncnet: result of `LipSyncPipeline.load_syncnet`.
            speaker: number of the speaker, from 1.
            progress: see `progress.ShowProgress`.

        Raises:
            UsageError: there is no such speaker.
            ScoreError: the video is too short.
        """
        if not 1 <= speaker <= len(self.speakers):
            raise UsageError(f'"speaker" cannot be {speaker}. Choose a number from 1 to {len(self.speakers)}.')
        lips = self.speakers[speaker - 1]
        step, frame_count = lips.timeline.rate / MODEL_RATE, lips.timeline.frame_count
        output_index = [int(i * step) for i in range(int(frame_count / step))]

        def read(count: int) -> Iterator[np.ndarray]:
            for frame, repeats in zip(self.frames(), np.bincount(output_index[:count]).tolist(), strict=False):
                yield from repeat(frame, repeats)

        source_index = [lips.timeline.source_index[i] for i in output_index]
        frames = ScoredFrames(source_index, read, lips.latent_index[output_index] >= 0)
        return score_track(lips.face_track, lips.waveform, frames, syncnet=syncnet, progress=progress)

    def warnings(self, format: Format) -> Iterator[str]:
        """Sentences for the user about the video and its sound. Only reading the video finds damage."""
        yield from self.source.warnings()
        waveforms = [lips.waveform for lips in self.speakers] + ([self.audio] if self.audio else [])
        waveforms += [self.background] if self.background else []
        yield from dict.fromkeys(warning for waveform in waveforms for warning in waveform.warnings)
        if self.source.has_alpha and not format.alpha_pix_fmt:
            yield (
                f"{self.source.name} has an alpha channel, but {format.name} does not support alpha. The result is "
                f"opaque. {ALPHA_FORMATS}"
            )

    def __repr__(self) -> str:
        return f"LipSyncResult({self.synced_frame_count} of {self.frame_count} frames synced, {self.source.name})"


def check_output(path: Path, source: FrameSource, waveform: Waveform, format: Format, *, crf: int = 18) -> None:
    """Encode the first frame in the folder of `path` and discard it, to find write errors before the long run.

    Raises:
        UsageError: the format does not support frames of this size.
        AudioError: the audio codec does not support the number of channels, or the waveform is empty.
        StorageError: the folder has too little space.
        MediaError: the file cannot be written.
    """
    check_free_space(path.absolute().parent, least_bytes(source, waveform, format))
    (frame,) = source.read([0])
    if source.has_alpha and format.alpha_pix_fmt:
        frame = np.dstack([to_float32(frame), *source.read_alpha([0])])
    writer = _open_writer(path, source, source.rate, format, crf, waveform)
    with writer.discarding():
        writer.write(frame)


def _open_writer(
    path: Path,
    source: FrameSource,
    rate: Fraction,
    format: Format,
    crf: int,
    waveform: Waveform,
    tags: Mapping[str, str] | None = None,
) -> VideoWriter:
    """A writer for frames of the size, the color and the pixel aspect of a source."""
    return VideoWriter(
        path,
        rate=rate,
        height=source.height,
        width=source.width,
        format=format,
        crf=crf,
        waveform=waveform,
        tags=tags,
        color=source.color,
        pixel_aspect=source.pixel_aspect,
    )


def least_bytes(source: FrameSource, waveform: Waveform, format: Format) -> int:
    """A size in bytes that almost every finished video exceeds."""
    bytes_per_pixel = CRF_BYTES_PER_PIXEL if format.has_crf else LOSSLESS_BYTES_PER_PIXEL
    frames = float(waveform.duration_seconds * min(source.rate, MODEL_RATE))
    return int(frames * source.width * source.height * bytes_per_pixel)


def check_free_space(folder: Path, needed: int) -> None:
    """Raise StorageError if a folder has fewer than `needed` bytes of free space, and MediaError if it is missing."""
    try:
        free = disk_usage(folder).free
    except OSError as cause:
        raise cannot_write(folder, cause) from cause
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 1e6:,.0f} MB of free space, but output of this length needs at "
            f"least {needed / 1e6:,.0f} MB. Free some space, or choose another output."
        )
