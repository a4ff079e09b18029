"""Read the audio of any media file at its own rate and channels."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import AudioError
from ..video.container import decode_packets, first_decodable, media_errors, open_container
from ..video.video_file import source_name
from .waveform import Waveform

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer


UNREADABLE = ("s64", "s64p")  # sample formats that PyAV makes no array of


GAP_SECONDS = Fraction(1, 20)  # between the timestamps of two pieces of sound, from which silence was left out


def read_audio(source: str | Path | BytesIO) -> Waveform:
    """The whole sound of a recording or of a video, at its own rate and channels.

    Raises:
        AudioError: no file, no sound in it, or one that cannot be decoded.
    """
    name = source_name(source)
    data = source.getvalue() if isinstance(source, BytesIO) else Path(source)
    with media_errors(name, AudioError, "sound"), open_container(data) as container:
        tracks = container.streams.audio
        if not tracks:
            raise AudioError(f"{name}: has no sound; give a recording, or a video that has one")
        stream = first_decodable(tracks)
        if stream is None:
            raise AudioError(f"{name}: its sound is cut short, or in a format that FFmpeg lacks; export it as WAV")
        pieces = list(_in_time(container, stream, name))
        if not pieces:
            raise AudioError(f"{name}: its sound is empty; export the recording again")
        if len({len(piece) for piece in pieces}) > 1:
            raise AudioError(f"{name}: its number of channels changes on the way; export it as stereo")
        return Waveform(torch.from_numpy(np.concatenate(pieces, axis=1)), stream.rate)


def _in_time(container: InputContainer, stream: AudioStream, name: str) -> Iterator[np.ndarray]:
    """The pieces of a sound track as float32 (channels, samples), with silence for those that are lost."""
    start, count = None, 0
    for frame in decode_packets(container, stream):
        if frame.format.name in UNREADABLE:
            raise AudioError(f"{name}: its samples are 64-bit integers, which are not read; export it with 24 bits")
        piece = _to_float(frame.to_ndarray(), frame)
        at = _first_sample(frame)
        if start is None and at is not None:
            start = at - count
        lost = 0 if start is None or at is None else round(at - start) - count
        if lost > GAP_SECONDS * frame.sample_rate:
            yield np.zeros((len(piece), lost), np.float32)
            count += lost
        yield piece
        count += piece.shape[1]


def _first_sample(frame: AudioFrame) -> Fraction | None:
    """Where a piece of sound begins, in samples, if its container says so."""
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base * frame.sample_rate


def _to_float(samples: np.ndarray, frame: AudioFrame) -> np.ndarray:
    """Decoded samples of any format -> float32 (channels, samples)."""
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    middle = 128 if samples.dtype == np.uint8 else 0
    full_scale = 2.0 ** (samples.dtype.itemsize * 8 - 1)
    return ((samples.astype(np.float64) - middle) / full_scale).astype(np.float32)
