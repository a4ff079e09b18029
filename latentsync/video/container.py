"""Open media files with PyAV 16 or newer. There is no network access, and errors name the file."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from ..errors import DependencyError, LatentSyncError, python_command, reason_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

S = TypeVar("S", bound="Stream")

MIN_PYAV = 16
NO_OTHER_FILE = {"protocol_whitelist": "none"}  # FFmpeg must not open the files of a playlist


@contextmanager
def open_container(content: Path | bytes) -> Generator[InputContainer, None, None]:
    """Open a media file, or its bytes.

    Python opens the file, because FFmpeg treats some file names as URLs.
    """
    import av

    # before PyAV 19 a metadata tag that is not UTF-8 is an error by default
    options: dict[str, Any] = {"metadata_errors": "ignore"} if check_pyav() < 19 else {}
    with (
        BytesIO(content) if isinstance(content, bytes) else _open_file(content) as file,
        av.open(file, mode="r", options=NO_OTHER_FILE, **options) as container,
    ):
        yield container


def _open_file(path: Path) -> BinaryIO:
    """Open a file. Raise an error for pipes and devices, because reading them may never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is a device or a pipe, not a file")
    return path.open("rb")


@contextmanager
def media_errors(name: str, error: type[LatentSyncError], kind: str) -> Generator[None, None, None]:
    """Turn failures of PyAV and of the disk into `error`, with the name of the file and a remedy.

    Args:
        kind: the expected content of the file: "a video" or "audio".
    """
    from av.error import FFmpegError

    try:
        yield
    except FileNotFoundError as cause:
        raise error(f"{name} does not exist. Check the path.") from cause
    except IsADirectoryError as cause:
        raise error(f"{name} is a folder. Choose a file.") from cause
    except (FFmpegError, OSError) as cause:
        raise error(
            f"{name} cannot be opened as {kind} ({reason_of(cause)}). The file may be damaged or incomplete. "
            "Check that the file plays, then export it again."
        ) from cause


def source_name(source: str | Path | BytesIO) -> str:
    """Name of a media source in messages: the file name without its folder."""
    return "The media in memory" if isinstance(source, BytesIO) else Path(source).name or str(source)


def picture_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of a file without cover pictures."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def preferred_stream(streams: Sequence[S]) -> S | None:
    """The stream that players choose: the first stream with the default flag, or else the first stream.

    The function skips streams with a codec that FFmpeg does not support, such as the spatial audio of phones.
    """
    from av.stream import Disposition

    decodable = [stream for stream in streams if getattr(stream, "codec_context", None) is not None]
    default = [stream for stream in decodable if stream.disposition & Disposition.default]
    return next(iter([*default, *decodable]), None)


def decode_packets(
    packets: Iterable[Packet[VideoStream]], decoder: VideoCodecContext | None = None, *, by_dts: bool = False
) -> Iterator[VideoFrame]:
    """Decode packets, and skip packets that cannot be decoded.

    Args:
        decoder: the decoder to use in place of the stream's decoder.
        by_dts: give each frame the decoding timestamp of its packet, because the container has no display times.
    """
    from av.error import InvalidDataError

    for packet in packets:
        if packet.size == 0 and packet.dts is not None:
            continue  # it repeats the previous frame (Theora, AVI). The last packet has no time and flushes the decoder
        if by_dts and packet.dts is not None:
            packet.pts = packet.dts
        try:
            frames = packet.decode() if decoder is None else decoder.decode(packet if packet.size else None)
        except InvalidDataError:
            continue
        yield from frames


def check_pyav() -> int:
    """The major version of PyAV.

    Raises:
        DependencyError: PyAV is too old.
    """
    import av

    version = int(av.__version__.partition(".")[0])
    if version < MIN_PYAV:
        command = python_command(f'pip install "av>={MIN_PYAV}"')
        raise DependencyError(
            f"PyAV {av.__version__} is too old. LatentSync needs version {MIN_PYAV} or newer. "
            f"Run {command} and try again."
        )
    return version
