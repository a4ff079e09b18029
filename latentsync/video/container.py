"""Open media files with PyAV: no network, errors that name the file, differences between PyAV versions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast, overload

from ..errors import LatentSyncError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


S = TypeVar("S", bound="Stream")


NO_OTHER_FILE = {"protocol_whitelist": "none"}  # FFmpeg's way to read whatever else a playlist may name


@contextmanager
def open_container(source: Path | bytes) -> Generator[InputContainer, None, None]:
    """The one file is opened here and not by FFmpeg, which takes some names for addresses, and some files for lists
    of others."""
    import av

    with (
        BytesIO(source) if isinstance(source, bytes) else _open_file(source) as file,
        av.open(file, mode="r", options=NO_OTHER_FILE, **tolerant_metadata()) as container,
    ):
        yield container


def _open_file(path: Path) -> BinaryIO:
    """A file, and nothing that may never end, or never begin, to be read."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("is no file, but a device or a pipe")
    return path.open("rb")


@contextmanager
def media_errors(name: str, error: type[LatentSyncError], wanted: str) -> Generator[None, None, None]:
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


def first_decodable(streams: Iterable[S]) -> S | None:
    """The first whose format FFmpeg knows, if any: phones add tracks of spatial sound that it does not."""
    return next((stream for stream in streams if getattr(stream, "codec_context", None) is not None), None)


@overload
def decode_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]: ...


@overload
def decode_packets(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]: ...


def decode_packets(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[VideoFrame | AudioFrame]:
    """The pictures, or the pieces of sound, that follow; what cannot be decoded is left out."""
    from av.error import InvalidDataError

    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError:
            continue
        yield from cast("list[VideoFrame | AudioFrame]", frames)  # a stream of either kind holds no subtitles


def tolerant_metadata() -> dict[str, Any]:
    """What to give to `av.open`: before PyAV 19 a tag that is no UTF-8 is an error unless this says otherwise."""
    return {"metadata_errors": "ignore"} if _major() < 19 else {}


def reformat(frame: VideoFrame, **wanted: Any) -> VideoFrame:  # noqa: ANN401 - PyAV's
    """`frame.reformat(**wanted)` in one thread.

    From PyAV 17 on several share the work, and swscale, which writes a little beyond the end of a row, then spoils the
    first pixels of the next one's part, if the other was faster.
    """
    if _major() >= 17:
        wanted["threads"] = 1
    return frame.reformat(**wanted)


def _major() -> int:
    import av

    return int(av.__version__.partition(".")[0])
