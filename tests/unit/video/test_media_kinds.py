"""Media of many kinds: each is read exact to the frame, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.audio.reader import read_audio
from latentsync.errors import AudioError, LatentSyncError, MediaError
from latentsync.video import decoder
from latentsync.video.video_file import VideoFile
from tests.support.numbered_clip import (
    HEIGHT,
    WIDTH,
    make_clip,
    number_of,
    numbered,
    numbers,
    packets,
    tone,
    turn,
)
from tests.support.wav import make_wav

FLIP_X = (-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
FLIP_Y = (1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30)
TRANSPOSE = (0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30)
NTSC = Fraction(30000, 1001)


def deep(path: Path, pixels: str = "yuv420p10le", codec: str = "libx265") -> None:
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=25, options={"crf": "4", "g": "10", "x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for number in range(30):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        out.mux(stream.encode(None))


def interlaced(path: Path) -> None:
    make_clip(path, range(30), options={"flags": "+ildct+ilme", "x264-params": "tff=1", "g": "10"})


def two_streams(path: Path) -> None:
    """Two video streams: the first one is read."""
    with av.open(str(path), "w", format="mp4") as out:
        film = out.add_stream("libx264", rate=25, options={"g": "10"})
        other = out.add_stream("libx264", rate=25)
        for stream in (film, other):
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(30):
            out.mux(film.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
            out.mux(other.encode(av.VideoFrame.from_ndarray(numbered(1000 - number), format="rgb24")))
        out.mux(film.encode(None))
        out.mux(other.encode(None))


def picture(path: Path) -> None:
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(5), format="rgb24")))


KINDS: dict[str, tuple[str, Callable[[Path], object], int]] = {
    "29.97": ("a.mp4", lambda path: make_clip(path, range(30), tick=1 / NTSC, rate=NTSC), 30),
    "10 bit": ("a.mkv", deep, 30),
    "10 bit 4:2:2": ("a.mkv", lambda path: deep(path, "yuv422p10le"), 30),
    "8 bit 4:2:2": ("a.mkv", lambda path: deep(path, "yuv422p", "libx264"), 30),
    "interlaced": ("a.mp4", interlaced, 30),
    "two streams": ("a.mp4", two_streams, 30),
    "vp8 webm": ("a.webm", lambda path: make_clip(path, range(30), codec="libvpx", container="webm", options={}), 30),
    "vp9 webm": (
        "a.webm",
        lambda path: make_clip(path, range(30), codec="libvpx-vp9", container="webm", options={}),
        30,
    ),
    "mpeg4 avi": ("a.avi", lambda path: make_clip(path, range(30), codec="mpeg4", container="avi", options={}), 30),
    "h264 avi": ("a.avi", lambda path: make_clip(path, range(30), container="avi", options={"bf": "0"}), 30),
    "transport stream": ("a.ts", lambda path: make_clip(path, range(30), container="mpegts"), 30),
}


@pytest.mark.parametrize(("name", "make", "count"), KINDS.values(), ids=KINDS)
def test_video_kinds_are_exact_to_the_frame(
    tmp_path: Path, name: str, make: Callable[[Path], object], count: int
) -> None:
    make(tmp_path / name)
    video = VideoFile(tmp_path / name)
    assert (video.height, video.width, video.frame_count) == (HEIGHT, WIDTH, count)
    order = [*range(count), *range(count - 1, -1, -1), 17, 3]
    assert [number_of(_as_bytes(frame)) for frame in video.read(order)] == order


def _as_bytes(frame: np.ndarray) -> np.ndarray:
    return (frame // 257).astype(np.uint8) if frame.dtype == np.uint16 else frame


def test_video_still_picture_has_one_frame(tmp_path: Path) -> None:
    picture(tmp_path / "still.png")
    still = VideoFile(tmp_path / "still.png")
    assert (still.frame_count, still.rate) == (1, 25)
    assert numbers(still.read([0, 0])) == [5, 5]


def test_video_10_bit_stays_10_bit(tmp_path: Path) -> None:
    deep(tmp_path / "a.mkv")
    (frame,) = VideoFile(tmp_path / "a.mkv").read([3])
    assert frame.dtype == np.uint16
    assert (frame % 257 != 0).any(), "some values lie between those of 8 bits"


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        pytest.param(FLIP_X, lambda stored: stored[:, ::-1], id="mirrored"),
        pytest.param(FLIP_Y, lambda stored: stored[::-1], id="upside down"),
        pytest.param(TRANSPOSE, lambda stored: stored.swapaxes(0, 1), id="mirrored and turned"),
    ],
)
def test_video_mirrored_display_matrix(
    tmp_path: Path, matrix: tuple[int, ...], shown: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = tmp_path / "selfie.mp4"
    make_clip(path, range(12))
    (stored,) = VideoFile(path).read([7])
    turn(path, matrix)
    video = VideoFile(path)
    (frame,) = video.read([7])
    np.testing.assert_array_equal(frame, shown(stored))
    assert frame.shape == (video.height, video.width, 3)


def test_video_damage_in_the_middle_is_counted(tmp_path: Path) -> None:
    """Frame 20 replaces 21 to 23. Every other frame is right in any order, and the count is exact."""
    path = tmp_path / "damaged.mp4"
    make_clip(path, range(60), options={"bf": "0", "g": "12", "crf": "10"})
    data = bytearray(path.read_bytes())
    for position, size in packets(path)[21:24]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    video = VideoFile(path)
    assert (video.frame_count, video.duration_seconds) == (60, Fraction(60, 25))
    expected = [20 if i in (21, 22, 23) else i for i in range(60)]
    shown = {order: [] for order in ("up", "down")}
    for order, indices in (("up", range(60)), ("down", range(59, -1, -1))):
        shown[order] = numbers(video.read(indices))
    assert shown["up"][:24] + shown["up"][36:] == expected[:24] + expected[36:]
    assert shown["down"] == shown["up"][::-1]
    (warning,) = video.warnings()
    assert warning.startswith("damaged.mp4 has 3 damaged frames out of 60. The first is frame 21.")


def test_video_damaged_start_is_reported(tmp_path: Path) -> None:
    """The first good frame replaces the damaged ones before it."""
    path = tmp_path / "damaged.mkv"
    make_clip(path, range(20), codec="mjpeg", container="matroska", options={"qmin": "2"}, pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    for position, size in packets(path)[:3]:
        data[position + 20 : position + size] = bytes(size - 20)
    path.write_bytes(data)
    video = VideoFile(path)
    assert numbers(video.read([0, 2, 3, 4, 19, 1])) == [3, 3, 3, 4, 19, 3]


def test_video_frames_before_first_keyframe_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "joined late.mp4"
    make_clip(path, range(36), options={"bf": "0", "g": "12", "crf": "10"})
    data = bytearray(path.read_bytes())
    position, size = packets(path)[0]
    data[position : position + size] = bytes(size)
    path.write_bytes(data)
    video = VideoFile(path)
    assert video.frame_count == 24
    assert numbers(video.read(range(24))) == list(range(12, 36))


def test_video_ping_pong_decodes_few_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the length takes twice the decoding, even if a GOP exceeds the cache."""
    from latentsync.video import container

    monkeypatch.setattr(decoder, "CACHE_BYTES", 10 * HEIGHT * WIDTH * 2)
    pictures = 0
    plain = container.decode_packets

    def counting(*arguments: object, **options: object) -> object:
        nonlocal pictures
        for frame in plain(*arguments, **options):
            pictures += 1
            yield frame

    monkeypatch.setattr(decoder, "decode_packets", counting)
    costs = []
    for count in (120, 240, 480):
        make_clip(tmp_path / "clip.mp4", range(count), options={"bf": "2", "g": "30", "crf": "20"})
        pictures = 0
        video = VideoFile(tmp_path / "clip.mp4")
        assert numbers(video.read([*range(count), *range(count - 1, -1, -1)]))[-1] == 0
        costs.append(pictures / count)
    assert max(costs) < 5, "forwards once; backwards a GOP of 30 in parts of 10"
    assert all(b < 1.2 * a for a, b in pairwise(costs))


def truncated(path: Path, container: str) -> Path:
    make_clip(path, range(200), container=container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize(("name", "container"), [("cut.mkv", "matroska"), ("cut.webm", "matroska"), ("cut.mp4", "mp4")])
def test_video_truncated_file_is_refused(tmp_path: Path, name: str, container: str) -> None:
    path = truncated(tmp_path / name, container)
    with pytest.raises(MediaError, match=rf"{name} .*(incomplete|damaged)"):
        VideoFile(path)


def test_video_recording_that_stops_is_complete(tmp_path: Path) -> None:
    """A transport stream may end anywhere, and what it holds is exact to the frame."""
    video = VideoFile(truncated(tmp_path / "cut.ts", "mpegts"))
    assert 50 < video.frame_count < 150
    assert numbers(video.read(range(video.frame_count - 1))) == list(range(video.frame_count - 1))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_video_b_frames_in_avi_are_in_order(tmp_path: Path, codec: str) -> None:
    """AVI stores decoding times only."""
    make_clip(tmp_path / "old.avi", range(30), codec=codec, container="avi", options={"bf": "2", "g": "12"})
    video = VideoFile(tmp_path / "old.avi")
    assert (video.frame_count, video.rate, video.duration_seconds) == (30, 25, Fraction(30, 25))
    order = [*range(30), *range(29, -1, -1), 17, 3, 28, 0]
    assert numbers(video.read(order)) == order


@pytest.mark.parametrize(("channels", "rate"), [(1, 44100), (2, 44100), (2, 48000), (6, 48000)])
def test_audio_keeps_channels_and_rate(tmp_path: Path, channels: int, rate: int) -> None:
    make_wav(tmp_path / "a.wav", tone(channels, rate), rate)
    waveform = read_audio(tmp_path / "a.wav")
    assert (waveform.samples.shape, waveform.rate) == ((channels, rate), rate)


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.mp3", "libmp3lame", "s16p"),
        ("a.m4a", "aac", "fltp"),
        ("a.flac", "flac", "s16"),
        ("a.webm", "libopus", "s16"),
    ],
)
def test_audio_lost_packet_is_silence(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    """Half a second is lost in the middle. The audio after it keeps its time, within a frame or two of the codec."""
    path = tmp_path / "whole.mka"
    with av.open(str(path), "w", format="matroska") as out:
        stream = out.add_stream(codec, rate=48000, layout="stereo")
        samples = tone(2, 48000, 2.0).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts = 48000, 0
        for piece in av.AudioResampler(kind, "stereo", 48000, stream.frame_size or 1024).resample(frame):
            for packet in stream.encode(piece):
                if not 0.7 < packet.pts * packet.time_base < 1.2:
                    out.mux(packet)
        out.mux(stream.encode(None))
    waveform = read_audio(path)
    assert waveform.duration_seconds == pytest.approx(2.0, abs=0.06)
    loud = waveform.samples.abs().amax(dim=0)
    assert float(loud[int(0.85 * 48000) : int(1.1 * 48000)].max()) < 0.05
    assert float(loud[int(1.3 * 48000) : int(1.9 * 48000)].max()) > 0.4


def no_audio(path: Path) -> None:
    make_clip(path, range(5))


def words(path: Path) -> None:
    path.write_text("neither")


def nothing(path: Path) -> None:
    make_wav(path, np.zeros((1, 0)), 16000)


@pytest.mark.parametrize(
    ("make", "name", "read", "error"),
    [
        (no_audio, "mute.mp4", read_audio, AudioError),
        (words, "words.mp3", read_audio, AudioError),
        (nothing, "nothing.wav", read_audio, AudioError),
        (words, "words.mov", VideoFile, MediaError),
    ],
)
def test_media_refused_by_name(
    tmp_path: Path,
    make: Callable[[Path], None],
    name: str,
    read: Callable[[Path], object],
    error: type[LatentSyncError],
) -> None:
    make(tmp_path / name)
    with pytest.raises(error, match=name):
        read(tmp_path / name)
