"""Read the audio of any media file in its original sample rate and channels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import AudioError, MediaError
from ..video.container import media_errors, open_container, picture_streams, preferred_stream, source_name
from ..video.frame_index import index_frames
from .waveform import Waveform, resample

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

log = logging.getLogger(__name__)

UNSUPPORTED_FORMATS = ("s64", "s64p")  # sample formats that PyAV cannot convert to an array
MIN_GAP_SECONDS = Fraction(1, 20)  # between timestamps. A longer gap means that audio was lost


class _Block(NamedTuple):
    """Decoded samples: float32 (channels, samples), at `rate` Hz."""

    samples: np.ndarray
    rate: int


def read_audio(source: str | Path | BytesIO, track: int | None = None) -> Waveform:
    """Read the whole audio of a recording or a video.

    The result begins at the first frame of a video. If the audio starts later, the result begins with silence. The
    result does not contain audio from before the first frame.

    Args:
        track: number of the audio track, from 1. None takes the track that players choose.

    Raises:
        AudioError: the file does not exist, cannot be decoded, or has no audio or no such track.
    """
    name = source_name(source)
    content = source.getvalue() if isinstance(source, BytesIO) else Path(source)
    with media_errors(name, AudioError, "audio"):
        picture_start = _picture_start(content, name)
        with open_container(content) as container:
            stream = _choose_stream(container.streams.audio, track, name)
            warnings = list(_track_warnings(container.streams.audio, stream, name))
            start, blocks = _decode(container, stream, name)
    if not blocks:
        raise AudioError(f"{name} has an empty audio stream. Export the recording again.")
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
    samples = _join(blocks, max(channels), max(rates))
    if start is not None and picture_start is not None:
        delay_seconds = start - picture_start
        if -delay_seconds * max(rates) >= samples.shape[1]:
            raise AudioError(
                f"The sound of {name} ends before its first frame appears. To use the sound, export only the sound as "
                "WAV."
            )
        samples = F.pad(samples, (round(delay_seconds * max(rates)), 0))
        log.info("%s: the sound begins %.0f ms after the picture", name, delay_seconds * 1000)
        if delay_seconds < -MIN_GAP_SECONDS:
            warnings.append(
                f"The sound of {name} begins {-float(delay_seconds):.2f} s before its first frame. LatentSync "
                "leaves that part out. To keep it, export only the sound as WAV."
            )
    return Waveform(samples, max(rates), tuple(warnings))


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


def _decode(container: InputContainer, stream: AudioStream, name: str) -> tuple[Fraction | None, list[_Block]]:
    """The start of the audio in seconds on the clock of the file, and its blocks. Silence replaces lost audio."""
    start, seconds = None, Fraction(0)
    blocks: list[_Block] = []
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
                blocks.append(_Block(np.zeros((len(samples), missing), np.float32), frame.sample_rate))
                seconds += Fraction(missing, frame.sample_rate)
        blocks.append(_Block(samples, frame.sample_rate))
        seconds += Fraction(samples.shape[1], frame.sample_rate)
    return start, blocks


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
    return torch.cat(parts, dim=1)


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
