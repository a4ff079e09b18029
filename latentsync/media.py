"""Media in: frames of a video file or of a picture batch, exact in time, and sound.

Only PyAV reads media. A file is indexed once by the timestamps of its packets, so that "frame 17" is the same
picture however it is reached: forwards, backwards, or out of the blue.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

import numpy as np
import torch

from .decoding import Reader, decoded, display_matrix, shown_size, to_rgb
from .errors import AudioError, LatentSyncError, MediaError, UsageError
from .frame_index import FrameIndex, index_frames
from .pixels import BT709, Colour
from .pyav import to_read_any_tag
from .types import Waveform

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

S = TypeVar("S", bound="Stream")

NO_OTHER_FILE = {"protocol_whitelist": "none"}  # FFmpeg's way to read whatever else a playlist may name
UNREADABLE = ("s64", "s64p")  # sample formats that PyAV makes no array of
GAP_SECONDS = Fraction(1, 20)  # between the timestamps of two pieces of sound, from which silence was left out


class FrameSource(Protocol):
    """Pictures in order of time, read again whenever they are needed.

    name: what errors call it.
    rate: frames per second; the mean where the clock varies.
    height, width: displayed size in pixels.
    colour: what the numbers of its pixels mean.
    identity: equal for two sources of the same pixels, as far as that is known without looking at them.
    """

    @property
    def name(self) -> str: ...
    @property
    def frame_count(self) -> int: ...
    @property
    def rate(self) -> Fraction: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def colour(self) -> Colour: ...
    @property
    def identity(self) -> Hashable: ...
    @property
    def duration_seconds(self) -> Fraction: ...

    def index_at(self, seconds: Fraction) -> int:
        """The frame on display `seconds` after the first one appeared; the first or last beyond the ends."""
        ...

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """(height, width, 3) RGB, C-contiguous, one per index: uint8 of a video, uint16 of one with more than 8 bits,
        float32 in 0..1 of a batch."""
        ...

    def remarks(self) -> Iterator[str]:
        """What its user should know of it, one sentence each; damage is met while reading."""
        ...


class VideoFile:
    """The frames of a video file, or of a part of it.

    Opening reads every packet but decodes one picture only. Any number of reads may run at once.

    Args:
        source: path, or the file's bytes (its position is neither used nor moved).
        start_seconds: frames before it are left out, counted from the first frame shown.
        duration_seconds: frames that begin later than this after `start_seconds` are left out; None keeps the rest.

    Raises:
        MediaError: no file, no video, or a damaged one.
        UsageError: the part asked for holds no frame.
    """

    def __init__(
        self,
        source: str | Path | BytesIO,
        *,
        start_seconds: Fraction = Fraction(0),
        duration_seconds: Fraction | None = None,
    ) -> None:
        self.name = source_name(source)
        self._source = source.getvalue() if isinstance(source, BytesIO) else Path(source)
        with _naming(self.name, MediaError, "video"), _open(self._source) as container:
            index = index_frames(container, _video_stream(container, self.name), self.name)
        with _naming(self.name, MediaError, "video"), _open(self._source) as container:
            picture = next(decoded(container, _video_stream(container, self.name)), None)
            if picture is None:
                raise MediaError(f"{self.name}: not one of its {len(index.pts)} frames can be decoded; export it again")
            self._matrix = display_matrix(picture)
            self.height, self.width = shown_size(picture, self._matrix)
            self.colour = Colour.said(picture.color_primaries, picture.color_trc, picture.colorspace)
            self._is_interlaced = picture.interlaced_frame
        self._index = index
        self._shown = _part(index, start_seconds, duration_seconds, self.name)
        self._damaged: set[int] = set()
        self.rate = index.rate

    @property
    def content(self) -> Path | bytes:
        """The file, or its bytes where it is held in memory."""
        return self._source

    @property
    def identity(self) -> Hashable:
        return self._source, self._shown

    @property
    def frame_count(self) -> int:
        return len(self._shown)

    @property
    def duration_seconds(self) -> Fraction:
        if self._index.is_constant:
            return self.frame_count / self.rate
        return self._index.seconds_between(self._shown.start, self._shown.stop)

    def index_at(self, seconds: Fraction) -> int:
        return min(max(self._index.at(self._shown.start, seconds) - self._shown.start, 0), self.frame_count - 1)

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames as RGB (height, width, 3) in the order of `indices`, which is consumed one at a time.

        They are uint8, or uint16 where the file has more than 8 bits. Rising indices are one decoding pass. A falling
        one decodes from the keyframe before it and holds up to 256 MB of the pictures on the way, so that those after
        it come from there. A damaged frame shows the last good one before it; see `remarks`.

        Raises:
            UsageError: an index out of range.
            MediaError: the file is damaged or gone.
        """
        last: tuple[int, np.ndarray] | None = None
        with _naming(self.name, MediaError, "video"), _open(self._source) as container:
            stream = _video_stream(container, self.name)
            reader = Reader(container, stream, self._index, self.name, self._damaged)
            for i in indices:
                if last is None or last[0] != i:
                    last = (i, to_rgb(reader.picture(self._shown[_checked(i, self)]), self._matrix))
                yield last[1]

    def remarks(self) -> Iterator[str]:
        """What its user should know of it, one sentence each.

        Damage is met while reading: ask after a read of the whole.
        """
        damaged = [i - self._shown.start for i in sorted(self._damaged) if i in self._shown]
        if damaged:
            yield (
                f"{self.name}: {len(damaged)} of {self.frame_count} frames are damaged (the first is {damaged[0]}); "
                "the picture before stands in for those that cannot be decoded"
            )
        if self._is_interlaced:
            yield f"{self.name}: is interlaced, and kept as it is; deinterlaced first, its lips would be finer"

    def __repr__(self) -> str:
        return f"VideoFile({self.name}, {_describe(self)})"


class ImageBatch:
    """The pictures of an IMAGE batch at a rate.

    Args:
        images: (frames, height, width, 3 or 4), floating point in 0..1, on any device; converted a frame at a time.
        rate: frames per second.

    Raises:
        MediaError: the tensor is no such batch.
    """

    name = "the image batch"
    colour = BT709

    def __init__(self, images: torch.Tensor, rate: Fraction) -> None:
        if images.ndim != 4 or images.shape[3] not in (3, 4) or 0 in images.shape or not images.is_floating_point():
            raise MediaError(
                f"{self.name}: images must be floating point (frames, height, width, 3 or 4) with none of them 0, "
                f"not {images.dtype} {tuple(images.shape)}"
            )
        if rate <= 0:
            raise UsageError(f"a frame rate must be positive, not {rate}")
        self.images = images
        self.rate = rate
        self.frame_count, self.height, self.width = images.shape[:3]

    @property
    def identity(self) -> Hashable:
        return self.images.data_ptr(), self.images.shape, self.images.stride(), self.rate

    @property
    def alpha(self) -> torch.Tensor | None:
        """(frames, height, width) in 0..1, where the batch has it."""
        return self.images[..., 3] if self.images.shape[3] == 4 else None

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def index_at(self, seconds: Fraction) -> int:
        return min(max(int(seconds * self.rate // 1), 0), self.frame_count - 1)

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """Frames as float32 (height, width, 3) RGB, in the order of `indices`.

        Raises:
            UsageError: an index out of range.
            MediaError: a frame holds NaN or infinity.
        """
        for i in indices:
            picture = self.images[_checked(i, self), ..., :3].to("cpu", torch.float32).contiguous()
            if not bool(picture.isfinite().all()):
                raise MediaError(f"{self.name}: frame {i} has values that are not numbers; look at the node it is from")
            yield picture.numpy()

    def remarks(self) -> Iterator[str]:
        """None."""
        return iter(())

    def __repr__(self) -> str:
        return f"ImageBatch({_describe(self)})"


def read_sound(source: str | Path | BytesIO) -> Waveform:
    """The whole sound of a recording or of a video, at its own rate and channels.

    Raises:
        AudioError: no file, no sound in it, or one that cannot be decoded.
    """
    name = source_name(source)
    data = source.getvalue() if isinstance(source, BytesIO) else Path(source)
    with _naming(name, AudioError, "sound"), _open(data) as container:
        tracks = container.streams.audio
        if not tracks:
            raise AudioError(f"{name}: has no sound; give a recording, or a video that has one")
        stream = _known(tracks)
        if stream is None:
            raise AudioError(f"{name}: its sound is cut short, or in a format that FFmpeg lacks; export it as WAV")
        pieces = list(_in_time(container, stream, name))
        if not pieces:
            raise AudioError(f"{name}: its sound is empty; export the recording again")
        if len({len(piece) for piece in pieces}) > 1:
            raise AudioError(f"{name}: its number of channels changes on the way; export it as stereo")
        return Waveform(torch.from_numpy(np.concatenate(pieces, axis=1)), stream.rate)


def source_name(source: str | Path | BytesIO) -> str:
    """What errors call it: the file's name, without its folder."""
    return "the media in memory" if isinstance(source, BytesIO) else Path(source).name or str(source)


def _part(index: FrameIndex, start: Fraction, duration: Fraction | None, name: str) -> range:
    """Frames that appear in [start, start + duration), give or take a rounded timestamp."""
    if start < 0 or (duration is not None and duration <= 0):
        raise UsageError(
            f"{name}: a part needs a start of at least 0 and a positive length, not {start} and {duration}"
        )
    stop = len(index.pts) if duration is None else index.beginning(start + duration)
    shown = range(index.beginning(start), stop)
    if not shown:
        lasts = float(index.seconds_between(0, len(index.pts)))
        raise UsageError(
            f"{name}: no frame begins in the part asked for (from {float(start):g} s); it lasts {lasts:g} s"
        )
    return shown


def _known(streams: Iterable[S]) -> S | None:
    """The first whose format FFmpeg knows, if any: phones add tracks of spatial sound that it does not."""
    return next((stream for stream in streams if getattr(stream, "codec_context", None) is not None), None)


def _in_time(container: InputContainer, stream: AudioStream, name: str) -> Iterator[np.ndarray]:
    """The pieces of a sound track as float32 (channels, samples), with silence for those that are lost."""
    start, count = None, 0
    for frame in decoded(container, stream):
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


def _checked(i: int, source: FrameSource) -> int:
    if not 0 <= i < source.frame_count:
        raise UsageError(f"{source.name}: there is no frame {i}; it has {source.frame_count}")
    return i


def _describe(source: FrameSource) -> str:
    return f"{source.frame_count} frames of {source.width} x {source.height} at {float(source.rate):g} fps"


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    from av.stream import Disposition

    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams:
        raise MediaError(f"{name}: has no video, only {_kinds(container)}; give a video file")
    stream = _known(streams)
    if stream is None:
        raise MediaError(f"{name}: its video is cut short, or in a format that FFmpeg lacks; export it as H.264")
    return stream


def _kinds(container: InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing that can be played"


@contextmanager
def _open(source: Path | bytes) -> Generator[InputContainer, None, None]:
    """The one file is opened here and not by FFmpeg, which takes some names for addresses, and some files for lists
    of others."""
    import av

    with (
        BytesIO(source) if isinstance(source, bytes) else _opened(source) as file,
        av.open(file, mode="r", options=NO_OTHER_FILE, **to_read_any_tag()) as container,
    ):
        yield container


def _opened(path: Path) -> BinaryIO:
    """A file, and nothing that may never end, or never begin, to be read."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("is no file, but a device or a pipe")
    return path.open("rb")


@contextmanager
def _naming(name: str, error: type[LatentSyncError], wanted: str) -> Generator[None, None, None]:
    """Failures of PyAV and of the disk become `error`, with the file's name, what was found and what to do."""
    from av.error import FFmpegError

    try:
        yield
    except FileNotFoundError as cause:
        raise error(f"{name}: there is no such file; check the path") from cause
    except IsADirectoryError as cause:
        raise error(f"{name}: is a folder; give a {wanted} file") from cause
    except (FFmpegError, OSError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise error(
            f"{name}: cannot be read as {wanted} ({reason}); it is empty, damaged, cut short or of another kind: "
            "check that it plays, and export it again"
        ) from cause
