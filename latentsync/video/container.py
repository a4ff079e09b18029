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

NO_OTHER_FILE = {"protocol_whitelist": "none"}  # keeps FFmpeg from opening the files that a playlist names


@contextmanager
def open_container(content: Path | bytes) -> Generator[InputContainer, None, None]:
    """Open a media file, or its bytes.

    Python opens the file, because FFmpeg takes some file names for addresses.
    """
    import av

    # before PyAV 19 a metadata tag that is not UTF-8 is an error by default
    options: dict[str, Any] = {"metadata_errors": "ignore"} if _pyav_version() < 19 else {}
    with (
        BytesIO(content) if isinstance(content, bytes) else _open_file(content) as file,
        av.open(file, mode="r", options=NO_OTHER_FILE, **options) as container,
    ):
        yield container


def _open_file(path: Path) -> BinaryIO:
    """Open a file, but no pipe or device: reading those may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is a device or a pipe, not a file")
    return path.open("rb")


@contextmanager
def media_errors(name: str, error: type[LatentSyncError], kind: str) -> Generator[None, None, None]:
    """Turn failures of PyAV and of the disk into `error`, with the name of the file and what to do.

    Args:
        kind: what the file should hold: "a video" or "audio".
    """
    from av.error import FFmpegError

    try:
        yield
    except FileNotFoundError as cause:
        raise error(f"{name} does not exist. Check the path.") from cause
    except IsADirectoryError as cause:
        raise error(f"{name} is a folder. Choose a file.") from cause
    except (FFmpegError, OSError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise error(
            f"{name} cannot be opened as {kind} ({reason}). It may be damaged or incomplete. Check that it plays, then "
            "export it again."
        ) from cause


def source_name(source: str | Path | BytesIO) -> str:
    """Name of a media source in messages: the file name without its folder."""
    return "The media in memory" if isinstance(source, BytesIO) else Path(source).name or str(source)


def first_decodable(streams: Iterable[S]) -> S | None:
    """The first stream with a codec that FFmpeg supports. Phones add spatial audio that it does not support."""
    return next((stream for stream in streams if getattr(stream, "codec_context", None) is not None), None)


@overload
def decode_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]: ...


@overload
def decode_packets(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]: ...


def decode_packets(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[VideoFrame | AudioFrame]:
    """Decode the frames that follow. Packets that cannot be decoded are skipped."""
    from av.error import InvalidDataError

    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except InvalidDataError:
            continue
        yield from cast("list[VideoFrame | AudioFrame]", frames)  # these streams hold no subtitles


def reformat(frame: VideoFrame, **options: Any) -> VideoFrame:  # noqa: ANN401 - options of PyAV
    """Call `frame.reformat(**options)` in one thread.

    From PyAV 17 on it uses several. swscale writes a little beyond the end of a row, which then overwrites the first
    pixels of the next thread's part if that one was faster.
    """
    if _pyav_version() >= 17:
        options["threads"] = 1
    return frame.reformat(**options)


def _pyav_version() -> int:
    import av

    return int(av.__version__.partition(".")[0])
