"""Read the audio of any media file at its own rate and channels."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import AudioError
from ..video.container import decode_packets, first_decodable, media_errors, open_container, source_name
from .waveform import Waveform

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

log = logging.getLogger(__name__)

UNSUPPORTED_FORMATS = ("s64", "s64p")  # sample formats that PyAV cannot convert to an array
MIN_GAP_SECONDS = Fraction(1, 20)  # between timestamps; a longer gap means that audio was lost


def read_audio(source: str | Path | BytesIO) -> Waveform:
    """Read the whole audio of a recording or a video.

    Raises:
        AudioError: the file does not exist, has no audio, or cannot be decoded.
    """
    name = source_name(source)
    content = source.getvalue() if isinstance(source, BytesIO) else Path(source)
    with media_errors(name, AudioError, "audio"), open_container(content) as container:
        streams = container.streams.audio
        if not streams:
            raise AudioError(f"{name} has no audio. Choose a recording, or a video with sound.")
        stream = first_decodable(streams)
        if stream is None:
            raise AudioError(
                f"{name} has audio that cannot be decoded. The file is incomplete, or FFmpeg does not support its "
                "codec. Export it as WAV."
            )
        log.debug("%s: reading audio stream %d of %d", name, streams.index(stream) + 1, len(streams))
        blocks = list(_decode(container, stream, name))
        if not blocks:
            raise AudioError(f"{name} has an empty audio stream. Export the recording again.")
        if len({len(block) for block in blocks}) > 1:
            raise AudioError(f"{name} changes its number of audio channels midway. Export it as stereo.")
        return Waveform(torch.from_numpy(np.concatenate(blocks, axis=1)), stream.rate)


def _decode(container: InputContainer, stream: AudioStream, name: str) -> Iterator[np.ndarray]:
    """Blocks of float32 (channels, samples), with silence in place of lost audio."""
    start, count = None, 0
    for frame in decode_packets(container, stream):
        if frame.format.name in UNSUPPORTED_FORMATS:
            raise AudioError(f"{name} has 64-bit integer samples, which are not supported. Export it with 24 bits.")
        samples = _to_float32(frame)
        if frame.pts is not None and frame.time_base is not None:
            position = frame.pts * frame.time_base * frame.sample_rate
            start = position - count if start is None else start
            missing = round(position - start) - count
            if missing > MIN_GAP_SECONDS * frame.sample_rate:
                log.info("%s: %d samples are missing at sample %d", name, missing, count)
                yield np.zeros((len(samples), missing), np.float32)
                count += missing
        yield samples
        count += samples.shape[1]


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
