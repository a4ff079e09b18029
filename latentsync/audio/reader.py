"""Read the audio of any media file in its original sample rate and channels."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AudioError, MediaError
from ..video.container import media_errors, open_container, picture_streams, preferred_stream, source_name
from ..video.frame_index import index_frames
from .mono import MonoSound, mono_blocks, mono_sound
from .waveform import BLOCK_SAMPLES, Waveform, resample

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

log = logging.getLogger(__name__)

UNSUPPORTED_FORMATS = ("s64", "s64p")  # sample formats that PyAV cannot convert to an array
MIN_GAP_SECONDS = Fraction(1, 20)  # between timestamps. A longer gap means that audio was lost


class _Block(NamedTuple):
    """Decoded samples: float32 (channels, samples), at `rate` Hz.

    start: start of the whole audio in seconds on the clock of the file. None: not known yet.
    """

    samples: np.ndarray
    rate: int
    start: Fraction | None

    @property
    def form(self) -> tuple[int, int, Fraction | None]:
        """Values that are equal for all blocks of a typical file."""
        return self.rate, len(self.samples), self.start


class _FormChangedError(Exception):
    """A block has another rate, number of channels or start than the first block. See `_Block.start`."""


class _Track(NamedTuple):
    """An opened audio track. `picture_start` is the time of the first frame, see `_picture_start`."""

    name: str
    picture_start: Fraction | None
    warnings: Sequence[str]
    blocks: Iterator[_Block]


def read_audio(source: str | Path | BytesIO, track: int | None = None) -> Waveform:
    """Read the whole audio of a recording or a video.

    The result begins at the first frame of a video. If the audio starts later, the result begins with silence. The
    result does not contain audio from before the first frame.

    Args:
        track: number of the audio track, from 1. None takes the track that players choose.

    Raises:
        AudioError: the file does not exist, cannot be decoded, or has no audio or no such track.
    """
    with _open_track(source, track) as opened:
        blocks = list(opened.blocks)
    name, warnings = opened.name, list(opened.warnings)
    if not blocks:
        raise _empty(name)
    rates, channels = {block.rate for block in blocks}, {len(block.samples) for block in blocks}
    if len(channels - {1}) > 1:
        raise AudioError(
            f"{name} changes its number of audio channels ({' and '.join(map(str, sorted(channels)))}). "
            "Export the recording as stereo."
        )
    if len(rates) > 1:
        hertz = " and ".join(f"{rate:,}" for rate in sorted(rates))
        warnings.append(
            f"{name} changes its sample rate ({hertz} Hz). LatentSync resamples the audio to {max(rates):,} Hz."
        )
    if len(channels) > 1:
        warnings.append(f"{name} changes from mono to {max(channels)} channels. The mono part plays on all channels.")
    delay_seconds = _delay_seconds(opened, blocks[-1].start)
    samples = _join(blocks, max(channels), max(rates))
    _check_end(name, delay_seconds, Fraction(samples.shape[1], max(rates)))
    if delay_seconds:
        samples = F.pad(samples, (round(delay_seconds * max(rates)), 0))
    return Waveform(samples, max(rates), (*warnings, *_delay_warnings(name, delay_seconds)))


def read_mono(
    source: str | Path | BytesIO,
    track: int | None = None,
    *,
    name: str = "audio",
    start_seconds: Fraction = Fraction(0),
    duration_seconds: Fraction | None = None,
) -> MonoSound:
    """Read the mean of all channels at 16 kHz in parts, without the whole audio in RAM.

    The samples equal the samples of `mono_sound` for the result of `read_audio`. The function needs the whole audio in
    RAM if the rate or the number of channels changes within the file, or if its first block has no timestamp.

    Args:
        track: see `read_audio`.
        name: name of the input in errors about the samples.
        start_seconds: start of the result. The result does not contain the audio before this time.
        duration_seconds: duration of the result. None: up to the end.

    Raises:
        AudioError: see `read_audio` and `mono_sound`.
        StorageError: the system's temporary folder is full or not writable.
    """
    try:
        with _open_track(source, track) as opened:
            return _store_mono(opened, name, start_seconds, duration_seconds)
    except _FormChangedError:
        log.info(
            "%s is read as a whole. Its audio changes its format, or begins without a timestamp", source_name(source)
        )
        whole = read_audio(source, track)
        samples = whole.samples[:, round(start_seconds * whole.rate) :]
        stop = None if duration_seconds is None else round(duration_seconds * whole.rate)
        return mono_sound(replace(whole, samples=samples[:, :stop]), name)


def _store_mono(track: _Track, name: str, start_seconds: Fraction, duration_seconds: Fraction | None) -> MonoSound:
    first = next(track.blocks, None)
    if first is None:
        raise _empty(track.name)
    rate, delay_seconds = first.rate, _delay_seconds(track, first.start)
    begin = round(start_seconds * rate) - round(delay_seconds * rate)  # in samples of the audio. Below 0: silence
    stop = sys.maxsize if duration_seconds is None else begin + round(duration_seconds * rate)

    def parts() -> Iterator[np.ndarray]:
        yield from _silence(len(first.samples), min(stop, 0) - begin)
        count = 0
        for block in chain([first], track.blocks):
            if block.form != first.form:
                raise _FormChangedError
            yield block.samples[:, max(begin - count, 0) : max(stop - count, 0)]
            count += block.samples.shape[1]
            if count >= stop:
                return
        _check_end(track.name, delay_seconds, Fraction(count, rate))

    sound = mono_blocks(_gathered(parts()), rate, name)
    return replace(sound, warnings=(*track.warnings, *_delay_warnings(track.name, delay_seconds)))


def _gathered(parts: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """The same samples, at least `BLOCK_SAMPLES` in all but the last part. The work on small parts takes longer."""
    pending, count = list[np.ndarray](), 0
    for part in parts:
        pending.append(part)
        count += part.shape[1]
        if count >= BLOCK_SAMPLES:
            yield torch.from_numpy(np.concatenate(pending, axis=1))
            pending, count = [], 0
    if count:
        yield torch.from_numpy(np.concatenate(pending, axis=1))


def _silence(channels: int, count: int) -> Iterator[np.ndarray]:
    """`count` samples in parts of at most `BLOCK_SAMPLES`. None if `count` is below 1."""
    for start in range(0, count, BLOCK_SAMPLES):
        yield np.zeros((channels, min(count - start, BLOCK_SAMPLES)), np.float32)


@contextmanager
def _open_track(source: str | Path | BytesIO, track: int | None) -> Generator[_Track, None, None]:
    """Open an audio track while the block runs. Raises the errors of `read_audio`."""
    name = source_name(source)
    content = source.getvalue() if isinstance(source, BytesIO) else Path(source)
    with media_errors(name, AudioError, "audio"):
        picture_start = _picture_start(content, name)
        with open_container(content) as container:
            stream = _choose_stream(container.streams.audio, track, name)
            warnings = list(_track_warnings(container.streams.audio, stream, name))
            yield _Track(name, picture_start, warnings, _decode(container, stream, name))


def _delay_seconds(track: _Track, start: Fraction | None) -> Fraction:
    """The time from the first frame to the start of the audio. 0 if this time is unknown."""
    if start is None or track.picture_start is None:
        return Fraction(0)
    log.info("%s: the sound begins %.0f ms after the picture", track.name, 1000 * (start - track.picture_start))
    return start - track.picture_start


def _check_end(name: str, delay_seconds: Fraction, duration_seconds: Fraction) -> None:
    """Raise AudioError if the audio ends before the first frame."""
    if 0 < duration_seconds <= -delay_seconds:
        raise AudioError(
            f"The sound of {name} ends before its first frame appears. To use the sound, export only the sound as WAV."
        )


def _delay_warnings(name: str, delay_seconds: Fraction) -> Iterator[str]:
    if delay_seconds < -MIN_GAP_SECONDS:
        yield (
            f"The sound of {name} begins {-float(delay_seconds):.2f} s before its first frame. LatentSync "
            "leaves that part out. To keep it, export only the sound as WAV."
        )


def _empty(name: str) -> AudioError:
    return AudioError(f"{name} has an empty audio stream. Export the recording again.")


def _picture_start(content: Path | bytes, name: str) -> Fraction | None:
    """The time of the first frame of a video, in seconds on the clock of the file. None without a readable video."""
    with open_container(content) as container:
        stream = preferred_stream(picture_streams(container))
        if stream is None:
            return None
        try:
            index = index_frames(container, stream, name)
        except MediaError as error:
            log.info("%s: the sound is read without its pictures (%s)", name, error)
            return None
        return index.pts[0] * index.time_base


def _choose_stream(streams: Sequence[AudioStream], track: int | None, name: str) -> AudioStream:
    if not streams:
        raise AudioError(f"{name} has no audio. Choose a recording, or a video with sound.")
    if track is not None and not 1 <= track <= len(streams):
        raise AudioError(f"{name} has no audio track {track}. {_track_list(streams)}")
    stream = preferred_stream(streams if track is None else [streams[track - 1]])
    if stream is None:
        raise AudioError(
            f"{name} has audio that cannot be decoded. The file is incomplete, or FFmpeg does not support its "
            "codec. Export the recording as WAV."
        )
    log.debug("%s: reading audio stream %d of %d", name, streams.index(stream) + 1, len(streams))
    return stream


def _track_warnings(streams: Sequence[AudioStream], stream: AudioStream, name: str) -> Iterator[str]:
    if len(streams) > 1:
        used = streams.index(stream) + 1
        yield f"{name} has several audio tracks. LatentSync uses track {used} of {len(streams)}. {_track_list(streams)}"


def _track_list(streams: Sequence[AudioStream]) -> str:
    """The audio tracks of a file, and the flag that chooses a track."""
    tracks = ", ".join(f"{number} ({_describe(stream)})" for number, stream in enumerate(streams, start=1))
    return f"The audio tracks are {tracks}. Choose a track with --audio-track."


def _describe(stream: AudioStream) -> str:
    from av.stream import Disposition

    parts = [stream.metadata.get("title"), stream.metadata.get("language")]
    if getattr(stream, "codec_context", None) is None:
        parts.append("not decodable")
    else:
        parts += [stream.codec_context.name, stream.codec_context.layout.name]
    if stream.disposition & Disposition.default:
        parts.append("default")
    return ", ".join(part for part in parts if part)


def _decode(container: InputContainer, stream: AudioStream, name: str) -> Iterator[_Block]:
    """Decode an audio track. Silence replaces lost audio."""
    start, seconds = None, Fraction(0)
    for frame in _decodable_frames(container, stream):
        if frame.format.name in UNSUPPORTED_FORMATS:
            raise AudioError(
                f"{name} has 64-bit integer samples, which LatentSync cannot read. Export the recording with 24 bits."
            )
        samples = _to_float32(frame)
        if frame.pts is not None and frame.time_base is not None:
            position = frame.pts * frame.time_base
            start = position - seconds if start is None else start
            missing = round((position - start - seconds) * frame.sample_rate)
            if missing > MIN_GAP_SECONDS * frame.sample_rate:
                log.info("%s: %d samples are missing at %.3f s", name, missing, seconds)
                yield from (_Block(part, frame.sample_rate, start) for part in _silence(len(samples), missing))
                seconds += Fraction(missing, frame.sample_rate)
        yield _Block(samples, frame.sample_rate, start)
        seconds += Fraction(samples.shape[1], frame.sample_rate)


def _decodable_frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """The frames of an audio stream, without the frames of damaged packets."""
    from av.error import InvalidDataError

    for packet in container.demux(stream):
        with suppress(InvalidDataError):
            yield from packet.decode()


def _join(blocks: Sequence[_Block], channels: int, rate: int) -> Tensor:
    """Join blocks to float32 (channels, samples) at one sample rate. Mono blocks play on all channels."""
    parts: list[Tensor] = []
    for (part_rate, _), group in groupby(blocks, key=lambda block: (block.rate, len(block.samples))):
        part = Waveform(torch.from_numpy(np.concatenate([block.samples for block in group], axis=1)), part_rate)
        parts.append(resample(part, rate).samples.expand(channels, -1))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # without a copy of a long recording


def _to_float32(frame: AudioFrame) -> np.ndarray:
    """Decoded samples of any format -> float32 (channels, samples) in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    middle = 128 if samples.dtype == np.uint8 else 0
    full_scale = 2.0 ** (samples.dtype.itemsize * 8 - 1)
    return ((samples.astype(np.float64) - middle) / full_scale).astype(np.float32)
