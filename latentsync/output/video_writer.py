"""Media out: a video file that appears under its name only when it is whole.

Pictures are BT.709 at limited range and tagged so, unless the source says that its colors are others: one rule, which
players, browsers and PyAV all follow, and which is the rule of nearly every HD source.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from ..audio.waveform import Waveform
from ..errors import AudioError, MediaError, UsageError, cannot_write
from ..fileio import temp_path
from ..video.color import BT709, MATRICES, ColorSpace, to_uint8
from ..video.container import reformat
from .formats import H264, LAYOUTS, Format, SoundCodec

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


LIMITED_RANGE, FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG


RGB_MATRIX = 0  # ITU-T H.273: the pixels are red, green and blue


UNORDERED_FRAMES = 2  # too few to be stored out of order; x265 then gives decoding times that mean nothing


PIECE_SAMPLES = 1024  # of sound, given to the encoder at once


class VideoWriter:
    """Writes frames and sound, interleaved, frame by frame.

    Used as a context manager. The file grows under a hidden temporary name beside `path` and is renamed when the
    block ends; if the block fails or is cancelled, nothing is left. Sizes that are odd either way are kept exactly,
    with unsubsampled color, which browsers may not play.

    Args:
        path: the finished file; an older one is replaced.
        rate: frames per second, kept exactly.
        height, width: of every frame, in pixels.
        form: container and codecs.
        crf: quality, 0 to 51; 18 looks like the source. Formats without crf take no notice.
        waveform: the sound, encoded once at its own channels and, where the codec knows it, its own rate.
        tags: the file's metadata, under any names.
        color: of the frames.

    Raises:
        UsageError: a size, rate or crf that cannot be.
        AudioError: a number of channels that the format's sound does not know, or no sample.
        MediaError: the file cannot be written, or no frame was.
    """

    def __init__(
        self,
        path: Path,
        *,
        rate: Fraction,
        height: int,
        width: int,
        form: Format = H264,
        crf: int = 18,
        waveform: Waveform | None = None,
        tags: Mapping[str, str] | None = None,
        color: ColorSpace = BT709,
    ) -> None:
        if rate <= 0 or height <= 0 or width <= 0 or not 0 <= crf <= 51:
            raise UsageError(f"cannot write {width} x {height} at {rate} fps with crf {crf}: all positive, crf 0 to 51")
        if waveform is not None:
            check_audio_codec(waveform, form.sound)
        self.path = path
        self.frame_count = 0
        self._rate = rate
        self._size = (height, width)
        self._form = form
        self._crf = crf
        self._waveform = waveform
        self._tags = dict(tags or {})
        self._color = color
        self._shape: tuple[int, ...] | None = None
        self._temporary = temp_path(path.absolute())  # FFmpeg takes a name with a colon for an address

    def __enter__(self) -> VideoWriter:
        import av

        with self._cleaning_up():
            self._temporary.touch()  # PyAV opens the file at the first packet only: too late to learn that it cannot
            self._container = av.open(
                str(self._temporary), "w", format=self._form.muxer, options=_muxer_options(self._form)
            )
            self._container.metadata.update(self._tags)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame: RGB (height, width, 3), of any dtype that a source gives, or RGBA (height, width, 4).

        The first frame decides on alpha and, where the format follows the source, on the bits of all.
        """
        with self._cleaning_up():
            if self._shape is None:
                self._begin(frame)
            if frame.shape != self._shape:
                raise MediaError(f"{self.path.name}: frames of {self._shape} were announced, not of {frame.shape}")
            picture = _picture(frame, self._pixels, self._color)
            picture.pts = self.frame_count
            picture.time_base = 1 / self._rate
            self._mux(self._video.encode(picture))
            self.frame_count += 1
            if self._sound is not None:
                self._mux(self._sound.until(self.frame_count / self._rate))

    def _begin(self, frame: np.ndarray) -> None:
        alpha = frame.ndim == 3 and frame.shape[2] == 4
        self._shape = (*self._size, 4 if alpha else 3)
        self._pixels = self._form.pixels_of(*self._size, alpha=alpha, deep=frame.dtype != np.uint8)
        self._video = _add_video(self._container, self._size, self._rate, self._form, self._pixels)
        _set_quality(self._video, self._form, self._crf)
        _set_color(self._video, self._color)
        self._sound = (
            None if self._waveform is None else _AudioEncoder(self._container, self._waveform, self._form.sound)
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        with self._cleaning_up():
            if self.frame_count == 0:
                raise MediaError(f"{self.path.name}: no frame was written, so there is no video")
            self._mux(self._last_pictures())
            if self._sound is not None:
                self._mux(self._sound.rest())
            self._container.close()
            self._temporary.replace(self.path)

    def _last_pictures(self) -> Iterator[Packet[VideoStream]]:
        for packet in self._video.encode(None):
            if self.frame_count <= UNORDERED_FRAMES:
                packet.dts = packet.pts
            yield packet

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        for packet in packets:
            self._container.mux(packet)

    @contextmanager
    def _cleaning_up(self) -> Generator[None, None, None]:
        from av.error import FFmpegError

        try:
            yield
        except (FFmpegError, OSError) as cause:
            self._discard()
            raise cannot_write(self.path, cause) from cause
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        """Leave nothing. The trailer that closing writes may fail as the frames did, and no longer matters."""
        from av.error import FFmpegError

        if hasattr(self, "_container"):
            with suppress(FFmpegError, OSError, ValueError):
                self._container.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


class _AudioEncoder:
    """A waveform encoded piece by piece, in step with the pictures."""

    def __init__(self, container: OutputContainer, waveform: Waveform, codec: SoundCodec) -> None:
        self._waveform = waveform
        self._stream = _add_audio(container, waveform, codec)
        self._at = 0

    def until(self, seconds: Fraction) -> Iterator[Packet[AudioStream]]:
        """Packets of the whole pieces that begin before `seconds`."""
        stop = min(int(seconds * self._waveform.rate), self._waveform.samples.shape[1] - PIECE_SAMPLES)
        while self._at < stop:
            yield from self._encode(PIECE_SAMPLES)

    def rest(self) -> Iterator[Packet[AudioStream]]:
        while (left := self._waveform.samples.shape[1] - self._at) > 0:
            yield from self._encode(min(left, PIECE_SAMPLES))
        yield from self._stream.encode(None)

    def _encode(self, count: int) -> list[Packet[AudioStream]]:
        import av

        piece = self._waveform.samples[:, self._at : self._at + count].to("cpu", torch.float32).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=LAYOUTS[len(piece)])
        frame.sample_rate = self._waveform.rate
        frame.time_base = Fraction(1, self._waveform.rate)
        frame.pts = self._at
        self._at += count
        return self._stream.encode(frame)


def _muxer_options(form: Format) -> dict[str, str]:
    if form.muxer in ("mp4", "mov"):
        return {"movflags": "faststart+use_metadata_tags"}
    return {"fflags": "bitexact"}  # Matroska's random identifiers would make no two files the same


def _add_video(
    container: OutputContainer, size: tuple[int, int], rate: Fraction, form: Format, pixels: str
) -> VideoStream:
    stream = cast("VideoStream", container.add_stream(form.encoder, rate=rate))
    stream.height, stream.width = size
    stream.pix_fmt = pixels
    stream.codec_context.time_base = 1 / rate
    if form.tag:
        stream.codec_context.codec_tag = form.tag
    return stream


def _set_quality(stream: VideoStream, form: Format, crf: int) -> None:
    quality = {"crf": str(crf)} if form.has_crf else {}
    stream.options = {**dict(form.options), **quality}
    stream.bit_rate = 0  # PyAV's own default, one megabit per second, would bound what crf asks for


def _set_color(stream: VideoStream, color: ColorSpace) -> None:
    is_rgb = stream.format.is_rgb
    context = stream.codec_context
    context.color_primaries, context.color_trc = color.primaries, color.transfer
    context.colorspace = RGB_MATRIX if is_rgb else color.matrix
    context.color_range = FULL_RANGE if is_rgb else LIMITED_RANGE


def _add_audio(container: OutputContainer, waveform: Waveform, codec: SoundCodec) -> AudioStream:
    channels, rate = waveform.samples.shape[0], codec.rate_for(waveform.rate)
    stream = cast("AudioStream", container.add_stream(codec.encoder, rate=rate, layout=LAYOUTS[channels]))
    if codec.sample_format:
        stream.codec_context.format = codec.sample_format
    if codec.bits_per_second:
        stream.bit_rate = codec.bit_rate(channels, rate)
    return stream


def check_audio_codec(waveform: Waveform, codec: SoundCodec) -> None:
    """Raises AudioError for sound that a codec cannot hold."""
    channels = waveform.samples.shape[0]
    if channels not in codec.channels:
        raise AudioError(
            f"{codec.encoder} holds {', '.join(map(str, codec.channels))} channels, not {channels}; "
            "convert the recording to stereo, or choose another format"
        )
    if waveform.samples.shape[1] == 0:
        raise AudioError("the sound is empty; give a recording")


def _picture(frame: np.ndarray, pixels: str, color: ColorSpace) -> VideoFrame:
    """A frame as the encoder takes it: of more than 8 bits where both the frame and the encoder have them.

    It may look at the array's own memory, which must not change any more.
    """
    import av

    layout = "rgba" if frame.shape[2] == 4 else "rgb"
    target = av.VideoFormat(pixels)
    if frame.dtype == np.uint8 or max(component.bits for component in target.components) <= 8:
        given = av.VideoFrame.from_numpy_buffer(to_uint8(frame), format="rgba" if layout == "rgba" else "rgb24")
    else:
        given = av.VideoFrame.from_numpy_buffer(_to_words(frame), format="rgba64le" if layout == "rgba" else "rgb48le")
    if target.is_rgb:
        return reformat(given, format=pixels)
    return reformat(given, format=pixels, dst_colorspace=MATRICES[color.matrix], dst_color_range="MPEG")


def _to_words(frame: np.ndarray) -> np.ndarray:
    """The frame as uint16 from 0 to 65535, C-contiguous."""
    if frame.dtype != np.uint16:
        frame = np.rint(np.clip(frame, 0, 1) * 65535).astype(np.uint16)
    return np.ascontiguousarray(frame)
