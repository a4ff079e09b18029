"""Write a video file frame by frame. The file gets its name only when it is complete.

The pixels are BT.709 in limited range, unless the original video uses another color space. The tags of the file contain
the color space. Players, browsers and PyAV follow these tags. Nearly every HD video uses BT.709.
"""

from __future__ import annotations

import logging
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
from ..video.container import check_pyav
from ..video.pixel_converter import PixelConverter
from .formats import CHANNEL_LAYOUTS, H264, AudioCodec, Format

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

LIMITED_RANGE, FULL_RANGE = 1, 2  # FFmpeg's AVCOL_RANGE_MPEG and AVCOL_RANGE_JPEG
RGB_MATRIX = 0  # ITU-T H.273: the pixels are RGB
MAX_FRAMES_IN_ORDER = 2  # up to this count. x265 gives such short videos random decoding times
SQUARE_MUXERS = ("webm", "matroska")  # PyAV cannot write their pixel aspect, so their frames are scaled
AUDIO_CHUNK_SAMPLES = 1024  # samples in one call of the audio encoder


class VideoWriter:
    """Writes frames and audio, interleaved, into one file.

    Use the writer as a context manager. The writer uses a hidden temporary name in the folder of `path`, and renames
    the file when the block ends. If the block fails or is canceled, the writer deletes the temporary file. Frames with
    an odd width or height keep their size and have no chroma subsampling. Some browsers cannot play such videos.

    Args:
        path: the finished file, which replaces an existing file.
        rate: frames per second, kept exactly.
        height, width: size of every frame in pixels.
        format: container and codecs.
        crf: quality, 0 to 51. 18 looks like the original. Formats without crf ignore it.
        waveform: the audio. The file keeps its channels and, if the codec supports it, its sample rate.
        tags: metadata of the file, under any names.
        color: color space of the frames.
        pixel_aspect: width / height of a pixel as displayed. MP4 and MOV store this ratio. For Matroska and WebM, the
            writer scales the frames to square pixels.

    Raises:
        UsageError: size, rate or crf is out of range.
        AudioError: the audio codec does not support the number of channels, or the waveform is empty.
        MediaError: the file cannot be written, or it received no frame.
    """

    def __init__(
        self,
        path: Path,
        *,
        rate: Fraction,
        height: int,
        width: int,
        format: Format = H264,
        crf: int = 18,
        waveform: Waveform | None = None,
        tags: Mapping[str, str] | None = None,
        color: ColorSpace = BT709,
        pixel_aspect: Fraction = Fraction(1),
    ) -> None:
        check_pyav()
        if rate <= 0 or height <= 0 or width <= 0 or not 0 <= crf <= 51:
            raise UsageError(
                f"A video of {width} x {height} at {rate} fps with crf {crf} cannot be written. "
                "Use a positive width, height and fps, and a crf from 0 to 51."
            )
        if waveform is not None:
            check_audio_codec(waveform, format.audio)
        self.path = path
        self.frame_count = 0
        self._rate = rate
        self._size = (height, width)
        self._format = format
        self._crf = crf
        self._waveform = waveform
        self._tags = dict(tags or {})
        self._color = color
        self._pixel_aspect = pixel_aspect
        self._frame_shape: tuple[int, ...] | None = None
        self._temporary = temp_path(path.absolute())  # FFmpeg treats a relative name with a colon as a URL

    def __enter__(self) -> VideoWriter:
        import av

        with self._cleaning_up():
            self._temporary.touch()  # PyAV opens the file at the first packet only, which reports an error too late
            options = {"movflags": "faststart+use_metadata_tags"} if self._format.muxer in ("mp4", "mov") else {}
            self._container = av.open(str(self._temporary), "w", format=self._format.muxer, options=options)
            self._container.metadata.update(self._tags)
        return self

    @contextmanager
    def discarding(self) -> Generator[None, None, None]:
        """Use the writer as a context manager, but leave no file."""
        try:
            self.__enter__()
            yield
        finally:
            self._discard()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame: RGB (height, width, 3) or RGBA (height, width, 4), uint8, uint16, or float32 in [0, 1].

        The first frame decides for all frames whether they have alpha and, if the format supports it, more than 8 bits.
        """
        with self._cleaning_up():
            if self._frame_shape is None:
                self._open_streams(frame)
            if frame.shape != self._frame_shape:
                raise MediaError(
                    f"Internal error: {self.path.name} received frames of different sizes. Please report this."
                )
            video_frame = to_video_frame(frame, self._convert)
            video_frame.pts = self.frame_count
            video_frame.time_base = 1 / self._rate
            self._mux(self._video.encode(video_frame))
            self.frame_count += 1
            if self._audio is not None:
                self._mux(self._audio.encode_until(self.frame_count / self._rate))

    def _open_streams(self, frame: np.ndarray) -> None:
        alpha = frame.ndim == 3 and frame.shape[2] == 4
        height, width = self._size
        self._frame_shape = (height, width, 4 if alpha else 3)
        pix_fmt = self._format.pix_fmt_for(height, width, alpha=alpha, high_depth=frame.dtype != np.uint8)
        aspect = self._pixel_aspect
        if self._format.muxer in SQUARE_MUXERS and aspect != 1:
            width, aspect = width % 2 + 2 * round((width - width % 2) * aspect / 2), Fraction(1)
        self._convert = encoder_converter(pix_fmt, self._color, (width, height))
        stream = cast("VideoStream", self._container.add_stream(self._format.encoder, rate=self._rate))
        stream.height, stream.width = height, width
        stream.pix_fmt = pix_fmt
        stream.options = {**dict(self._format.options), **({"crf": str(self._crf)} if self._format.has_crf else {})}
        stream.bit_rate = 0  # PyAV's default of 1 Mbit/s would limit crf
        context = stream.codec_context
        context.time_base = 1 / self._rate
        context.sample_aspect_ratio = aspect
        if self._format.tag:
            context.codec_tag = self._format.tag
        is_rgb = stream.format.is_rgb
        context.color_primaries, context.color_trc = self._color.primaries, self._color.transfer
        context.colorspace = RGB_MATRIX if is_rgb else self._color.matrix
        context.color_range = FULL_RANGE if is_rgb else LIMITED_RANGE
        self._video = stream
        self._audio = (
            None if self._waveform is None else _AudioEncoder(self._container, self._waveform, self._format.audio)
        )
        log.info(
            "writing %s: %s as %s, %d x %d at %s fps",
            self.path.name,
            self._format.encoder,
            pix_fmt,
            width,
            height,
            self._rate,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        with self._cleaning_up():
            if self.frame_count == 0:
                raise MediaError(
                    f"{self.path.name} has no frames, so LatentSync did not write this file. "
                    "Use a longer video or recording."
                )
            for packet in self._video.encode(None):
                if self.frame_count <= MAX_FRAMES_IN_ORDER:
                    packet.dts = packet.pts
                self._container.mux(packet)
            if self._audio is not None:
                self._mux(self._audio.flush())
            self._container.close()
            self._temporary.replace(self.path)

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
        """Close and delete the temporary file. Ignore errors, because closing writes a trailer, which may also fail."""
        from av.error import FFmpegError

        if hasattr(self, "_container"):
            with suppress(FFmpegError, OSError, ValueError):
                self._container.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def check_audio_codec(waveform: Waveform, codec: AudioCodec) -> None:
    """Raise AudioError if a codec does not support the number of channels, or if the waveform is empty."""
    channels, samples = waveform.samples.shape
    if channels not in codec.channels:
        raise AudioError(
            f"{codec.encoder} supports {', '.join(map(str, codec.channels))} audio channels, not {channels}. "
            "Convert the recording to stereo, or choose another format."
        )
    if samples == 0:
        raise AudioError("The audio of the result is empty. Choose another recording.")


def encoder_converter(pix_fmt: str, color: ColorSpace, size: tuple[int, int] | None = None) -> PixelConverter:
    """Converts RGB frames to the encoder's pixels. All frames of a video use one converter."""
    import av

    is_rgb = av.VideoFormat(pix_fmt).is_rgb
    options = {} if is_rgb else {"out_color_matrix": MATRICES[color.matrix], "out_range": "limited"}
    return PixelConverter(pix_fmt, {"flags": "bilinear", **options}, size)


def to_video_frame(frame: np.ndarray, convert: PixelConverter) -> VideoFrame:
    """Convert a frame (H, W, 3 or 4) to the encoder's pixels. The result has more than 8 bits only if both frame and
    encoder do.

    The result may share the array's memory, so do not change the array afterwards.
    """
    import av

    alpha = frame.shape[2] == 4
    if frame.dtype == np.uint8 or max(part.bits for part in av.VideoFormat(convert.pix_fmt).components) <= 8:
        rgb = av.VideoFrame.from_numpy_buffer(to_uint8(frame), format="rgba" if alpha else "rgb24")
    else:
        if frame.dtype != np.uint16:
            frame = np.rint(np.clip(frame, 0, 1) * 65535).astype(np.uint16)
        rgb = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgba64le" if alpha else "rgb48le")
    return convert(rgb)


class _AudioEncoder:
    """Encodes a waveform in chunks, each at the time of its frame."""

    def __init__(self, container: OutputContainer, waveform: Waveform, codec: AudioCodec) -> None:
        channels, rate = waveform.samples.shape[0], codec.sample_rate_for(waveform.rate)
        if rate != waveform.rate:
            log.info("resampling the audio from %d Hz to %d Hz for %s", waveform.rate, rate, codec.encoder)
        stream = cast("AudioStream", container.add_stream(codec.encoder, rate=rate, layout=CHANNEL_LAYOUTS[channels]))
        if codec.sample_format:
            stream.codec_context.format = codec.sample_format
        if codec.bits_per_second:
            stream.bit_rate = codec.bit_rate(channels, rate)
        self._stream = stream
        self._waveform = waveform
        self._position = 0  # samples encoded so far

    def encode_until(self, seconds: Fraction) -> Iterator[Packet[AudioStream]]:
        """Packets of the full chunks that begin before `seconds`."""
        stop = min(int(seconds * self._waveform.rate), self._waveform.samples.shape[1] - AUDIO_CHUNK_SAMPLES)
        while self._position < stop:
            yield from self._encode(AUDIO_CHUNK_SAMPLES)

    def flush(self) -> Iterator[Packet[AudioStream]]:
        """Packets of the remaining samples, and the last packets of the encoder."""
        while (remaining := self._waveform.samples.shape[1] - self._position) > 0:
            yield from self._encode(min(remaining, AUDIO_CHUNK_SAMPLES))
        yield from self._stream.encode(None)

    def _encode(self, count: int) -> list[Packet[AudioStream]]:
        import av

        samples = self._waveform.samples[:, self._position : self._position + count]
        chunk = samples.to("cpu", torch.float32).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout=CHANNEL_LAYOUTS[len(chunk)])
        frame.sample_rate = self._waveform.rate
        frame.time_base = Fraction(1, self._waveform.rate)
        frame.pts = self._position
        self._position += count
        return self._stream.encode(frame)
