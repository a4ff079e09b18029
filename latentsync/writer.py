"""Media out: an mp4 that appears under its name only when it is whole.

Pictures are BT.709 at limited range and tagged so, whatever their size: one rule, which players, browsers and PyAV
all follow, and which is the rule of nearly every HD source.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch

from .errors import AudioError, MediaError, UsageError
from .pixels import to_bytes
from .types import Waveform

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

BT709 = 1  # ITU-T H.273: colour primaries, transfer and matrix have the same number
LIMITED_RANGE = 1  # FFmpeg's AVCOL_RANGE_MPEG
AAC_FRAME_SAMPLES = 1024
AAC_BITS_PER_SECOND = 96_000  # per channel
AAC_BITS_PER_SAMPLE = 6  # the most that AAC can hold, per channel: it matters at low rates
AAC_RATES = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}


class VideoWriter:
    """Writes frames and sound as H.264 and AAC, interleaved, frame by frame.

    Used as a context manager. The file grows under a hidden temporary name beside `path` and is renamed when the
    block ends; if the block fails or is cancelled, nothing is left. Sizes that are odd either way are kept exactly,
    with unsubsampled colour (yuv444p), which browsers may not play; all others are yuv420p.

    Args:
        path: the finished file; an older one is replaced.
        rate: frames per second, kept exactly.
        height, width: of every frame, in pixels.
        crf: x264's quality, 0 (lossless) to 51; 18 looks like the source.
        waveform: the sound, encoded once at its own rate and channels, as long as it is.
        tags: the file's metadata, under any names.

    Raises:
        UsageError: a size, rate or crf that cannot be.
        AudioError: a sample rate or a number of channels that AAC does not know.
        MediaError: the file cannot be written, or no frame was.
    """

    def __init__(
        self,
        path: Path,
        *,
        rate: Fraction,
        height: int,
        width: int,
        crf: int = 18,
        waveform: Waveform | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if rate <= 0 or height <= 0 or width <= 0 or not 0 <= crf <= 51:
            raise UsageError(f"cannot write {width} x {height} at {rate} fps with crf {crf}: all positive, crf 0 to 51")
        if waveform is not None:
            _check_sound(waveform)
        self.path = path
        self.frame_count = 0
        self._rate = rate
        self._shape = (height, width, 3)
        self._crf = crf
        self._waveform = waveform
        self._tags = dict(tags or {})
        self._temporary = path.with_name(f".{path.stem}.{uuid4().hex[:12]}.part.mp4")

    def __enter__(self) -> VideoWriter:
        import av

        with self._cleaning_up():
            self._temporary.touch()  # PyAV opens the file at the first packet only: too late to learn that it cannot
            self._container = av.open(
                str(self._temporary), "w", format="mp4", options={"movflags": "faststart+use_metadata_tags"}
            )
            self._container.metadata.update(self._tags)
            self._video = _add_video(self._container, self._shape, self._rate, self._crf)
            self._sound = None if self._waveform is None else _Sound(self._container, self._waveform)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame: RGB (height, width, 3), of any dtype that a source gives."""
        import av

        if frame.shape != self._shape:
            raise MediaError(f"{self.path.name}: frames of {self._shape} were announced, not of {frame.shape}")
        with self._cleaning_up():
            picture = av.VideoFrame.from_ndarray(to_bytes(frame), format="rgb24").reformat(
                format=self._video.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            picture.pts = self.frame_count
            picture.time_base = 1 / self._rate
            self._mux(self._video.encode(picture))
            self.frame_count += 1
            if self._sound is not None:
                self._mux(self._sound.until(self.frame_count / self._rate))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        with self._cleaning_up():
            if self.frame_count == 0:
                raise MediaError(f"{self.path.name}: no frame was written, so there is no video")
            self._mux(self._video.encode(None))
            if self._sound is not None:
                self._mux(self._sound.rest())
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
            reason = getattr(cause, "strerror", None) or str(cause)
            raise MediaError(
                f"{self.path}: cannot be written ({reason}); check the folder, its permissions and the free space"
            ) from cause
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


class _Sound:
    """A waveform encoded piece by piece, in step with the pictures."""

    def __init__(self, container: OutputContainer, waveform: Waveform) -> None:
        self._waveform = waveform
        self._stream = _add_sound(container, waveform)
        self._at = 0

    def until(self, seconds: Fraction) -> Iterator[Packet[AudioStream]]:
        """Packets of the whole AAC frames that begin before `seconds`."""
        stop = min(int(seconds * self._waveform.rate), self._waveform.samples.shape[1] - AAC_FRAME_SAMPLES)
        while self._at < stop:
            yield from self._encode(AAC_FRAME_SAMPLES)

    def rest(self) -> Iterator[Packet[AudioStream]]:
        while (left := self._waveform.samples.shape[1] - self._at) > 0:
            yield from self._encode(min(left, AAC_FRAME_SAMPLES))
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


def _add_video(container: OutputContainer, shape: tuple[int, int, int], rate: Fraction, crf: int) -> VideoStream:
    height, width, _ = shape
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = BT709
    context.color_range = LIMITED_RANGE
    return stream


def _add_sound(container: OutputContainer, waveform: Waveform) -> AudioStream:
    channels = waveform.samples.shape[0]
    stream = container.add_stream("aac", rate=waveform.rate, layout=LAYOUTS[channels])
    stream.bit_rate = channels * min(AAC_BITS_PER_SECOND, AAC_BITS_PER_SAMPLE * waveform.rate)
    return stream


def _check_sound(waveform: Waveform) -> None:
    channels = waveform.samples.shape[0]
    if waveform.rate not in AAC_RATES or channels not in LAYOUTS:
        raise AudioError(
            f"AAC holds {', '.join(map(str, LAYOUTS))} channels at {', '.join(map(str, AAC_RATES))} Hz, not "
            f"{channels} at {waveform.rate} Hz; convert the recording to 48000 Hz stereo"
        )
    if waveform.samples.shape[1] == 0:
        raise AudioError("the sound is empty; give a recording")
