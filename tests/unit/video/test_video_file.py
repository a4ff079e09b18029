"""Reading frames: each carries its number as a pattern of bars, so the tests see which frame they got."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from latentsync.errors import MediaError, UsageError
from latentsync.video import decoder
from latentsync.video.video_file import VideoFile
from tests.support.numbered_clip import HEIGHT, WIDTH, make_clip, number_of, numbers, turn
from tests.support.wav import make_wav

NTSC = Fraction(30000, 1001)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """60 frames at 25 fps with B-frames, a keyframe every 12."""
    path = tmp_path / "clip.mp4"
    make_clip(path, range(60))
    return path


def test_video_file_constant_frame_rate(clip: Path) -> None:
    video = VideoFile(clip)
    assert (video.name, video.frame_count, video.rate) == ("clip.mp4", 60, 25)
    assert (video.height, video.width) == (HEIGHT, WIDTH)
    assert video.duration_seconds == Fraction(60, 25)
    frames = list(video.read(range(60)))
    assert numbers(frames) == list(range(60))
    assert all(f.dtype == np.uint8 and f.flags.c_contiguous and f.shape == (HEIGHT, WIDTH, 3) for f in frames)


@pytest.mark.parametrize(
    "order",
    [
        pytest.param([*range(60), *range(59, -1, -1), *range(20)], id="ping-pong"),
        pytest.param([*range(59, -1, -3)], id="backwards in steps"),
        pytest.param([0, 0, 5, 5, 5, 40, 41, 59], id="repeats and skips"),
        pytest.param([*range(60), *range(60)], id="loop"),
        pytest.param([31, 2, 58, 12, 11, 24, 23, 0, 59, 35], id="random"),
    ],
)
@pytest.mark.parametrize("cached_frames", [1, 5, 1000])
def test_video_file_any_read_order(
    clip: Path, order: list[int], cached_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "CACHE_BYTES", cached_frames * HEIGHT * WIDTH * 2)
    assert numbers(VideoFile(clip).read(iter(order))) == order


def test_video_file_backward_read_decodes_gop_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    keep = decoder.FrameReader._keep

    def counting(reader: decoder.FrameReader, at: int, *rest: object, **options: bool) -> None:
        decoded.append(at)
        keep(reader, at, *rest, **options)

    monkeypatch.setattr(decoder.FrameReader, "_keep", counting)
    list(VideoFile(clip).read(range(59, -1, -1)))
    assert len(decoded) <= 60 + 12, "each GOP once, and the last one again, because the first request is a single frame"


def test_video_file_cache_stays_within_limit(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "CACHE_BYTES", 4 * HEIGHT * WIDTH * 2)
    most = 0
    keep = decoder.FrameReader._keep

    def watching(reader: decoder.FrameReader, *rest: object, **options: bool) -> None:
        nonlocal most
        keep(reader, *rest, **options)
        most = max(most, len(reader._cache))

    monkeypatch.setattr(decoder.FrameReader, "_keep", watching)
    list(VideoFile(clip).read([*range(60), *range(59, -1, -1)]))
    assert 1 < most <= 8


def test_video_file_takes_indices_one_at_a_time(clip: Path) -> None:
    taken: list[int] = []

    def asking() -> Iterable[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    frames = VideoFile(clip).read(asking())
    assert numbers(itertools.islice(frames, 3)) == [0, 1, 2]
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("index", [-1, 60])
def test_video_file_names_index_out_of_range(clip: Path, index: int) -> None:
    with pytest.raises(UsageError, match=rf"clip.mp4 has no frame {index}. Use a frame from 0 to 59"):
        list(VideoFile(clip).read([index]))


def test_video_file_variable_frame_rate(tmp_path: Path) -> None:
    shown_at = [0, 40, 80, 200, 210, 333, 500, 900, 940, 1000]
    path = tmp_path / "vfr.mkv"
    make_clip(path, shown_at, tick=Fraction(1, 1000), container="matroska", options={"bf": "2", "g": "4", "crf": "10"})
    video = VideoFile(path)
    assert video.frame_count == 10
    assert abs(video.rate - 9) < Fraction(1, 2)
    assert [video.index_at(Fraction(t, 1000)) for t in shown_at] == list(range(10))
    assert [video.time_of(i) for i in range(10)] == [Fraction(t, 1000) for t in shown_at]
    assert [video.index_at(Fraction(t - 2, 1000)) for t in shown_at[1:]] == list(range(9))
    assert numbers(video.read(range(9, -1, -1))) == list(range(9, -1, -1))
    assert 1 < video.duration_seconds < Fraction(6, 5)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(24), NTSC, Fraction(30), Fraction(50), NTSC * 2])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_video_file_exact_frame_rates(tmp_path: Path, rate: Fraction, container: str) -> None:
    """Matroska rounds timestamps to 1 ms and MPEG-TS to 1/90000 s. The rate is still exact."""
    path = tmp_path / "clip"
    make_clip(path, range(120), tick=1 / rate, rate=rate, container=container)
    video = VideoFile(path)
    assert (video.rate, video.frame_count, video.duration_seconds) == (rate, 120, 120 / rate)
    assert [video.index_at(i / rate) for i in range(120)] == list(range(120))
    assert [video.time_of(i) for i in range(120)] == [i / rate for i in range(120)]
    assert numbers(video.read([5, 100, 99, 98, 0, 119])) == [5, 100, 99, 98, 0, 119]


def test_video_file_times_beyond_the_ends(clip: Path) -> None:
    video = VideoFile(clip)
    assert video.index_at(Fraction(-1)) == 0
    assert video.index_at(Fraction(1000)) == 59


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_video_file_time_starts_at_first_frame(tmp_path: Path, container: str) -> None:
    path = tmp_path / "late"
    make_clip(path, range(100, 140), container=container)
    video = VideoFile(path)
    assert (video.frame_count, video.duration_seconds) == (40, Fraction(40, 25))
    assert [video.index_at(Fraction(i, 25)) for i in range(40)] == list(range(40))
    assert numbers(video.read([39, 38, 0, 1])) == [39, 38, 0, 1]


def test_video_file_trim(clip: Path) -> None:
    video = VideoFile(clip, start_seconds=Fraction(14, 25), duration_seconds=Fraction(20, 25))
    assert (video.frame_count, video.duration_seconds) == (20, Fraction(20, 25))
    assert numbers(video.read(range(20))) == list(range(14, 34))
    assert numbers(video.read([19, 18, 0])) == [33, 32, 14]
    assert video.index_at(Fraction(0)) == 0
    assert video.index_at(Fraction(9)) == 19
    between = VideoFile(clip, start_seconds=Fraction(1, 50))
    assert number_of(next(between.read([0]))) == 1


@pytest.mark.parametrize(("start", "duration"), [(Fraction(3), None), (Fraction(-1), None), (Fraction(0), Fraction(0))])
def test_video_file_empty_trim_is_refused(clip: Path, start: Fraction, duration: Fraction | None) -> None:
    with pytest.raises(UsageError, match=r"clip.mp4"):
        VideoFile(clip, start_seconds=start, duration_seconds=duration)


@pytest.mark.parametrize(
    ("matrix", "anticlockwise"),
    [
        pytest.param((0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30), -1, id="90 clockwise"),
        pytest.param((-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30), 2, id="180"),
        pytest.param((0, -1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30), 1, id="90 anticlockwise"),
    ],
)
def test_video_file_rotation(clip: Path, matrix: tuple[int, ...], anticlockwise: int) -> None:
    plain = next(VideoFile(clip).read([37]))
    turn(clip, matrix)
    video = VideoFile(clip)
    turned = next(video.read([37]))
    assert turned.shape == (video.height, video.width, 3)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, np.rot90(plain, anticlockwise))


def test_video_file_odd_size(tmp_path: Path) -> None:
    make_clip(tmp_path / "odd.mp4", range(20), size=(49, 83))
    video = VideoFile(tmp_path / "odd.mp4")
    assert (video.height, video.width) == (49, 83)
    assert numbers(video.read([19, 3])) == [19, 3]


def test_video_file_from_bytes(clip: Path) -> None:
    data = BytesIO(clip.read_bytes())
    data.seek(17)
    video = VideoFile(data)
    first, second = video.read(range(60)), video.read(range(59, -1, -1))
    pairs = [(number_of(a), number_of(b)) for a, b in zip(first, second, strict=True)]
    assert pairs == [(i, 59 - i) for i in range(60)]
    assert data.tell() == 17


def test_video_file_two_readers_at_once(clip: Path) -> None:
    video = VideoFile(clip)
    assert [
        (number_of(a), number_of(b)) for a, b in zip(video.read(range(50)), video.read(range(10, 60)), strict=True)
    ] == [(i, i + 10) for i in range(50)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_video_file_dropped_read_closes_file(clip: Path) -> None:
    video = VideoFile(clip)
    gc.collect()
    before = open_files()
    frames = video.read(range(60))
    next(frames)
    assert open_files() == before + 1
    del frames
    assert open_files() == before


@pytest.mark.parametrize("codec", ["libvpx-vp9", "ffv1", "mpeg4", "libx265"])
def test_video_file_other_codecs(tmp_path: Path, codec: str) -> None:
    make_clip(tmp_path / "clip.mkv", range(40), codec=codec, container="matroska", options={"g": "10"})
    order = [*range(40), *range(39, -1, -1), 17]
    assert numbers(VideoFile(tmp_path / "clip.mkv").read(order)) == order


def test_video_file_names_file_that_is_no_video(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    make_wav(tmp_path / "sound.wav", np.zeros((1, 1600)), 16000)
    for path, reason in {
        "missing.mp4": "does not exist",
        "empty.mp4": "cannot be opened as a video",
        "text.mp4": "cannot be opened as a video",
        "sound.wav": "has no video, only audio",
        ".": "folder",
    }.items():
        with pytest.raises(MediaError, match=reason) as caught:
            VideoFile(tmp_path / path)
        assert (tmp_path / path).name in str(caught.value)
    with pytest.raises(MediaError, match="The media in memory cannot be opened"):
        VideoFile(BytesIO(b"nothing"))


def test_video_file_refuses_absurd_timestamps(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mkv", [0, 1, 5_000_000], container="matroska")
    with pytest.raises(MediaError, match=r"clip.mkv has wrong timestamps. The frames are 100000 s apart"):
        VideoFile(tmp_path / "clip.mkv")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("faststart", [False, True])
def test_video_file_truncated_mp4_is_refused(tmp_path: Path, kept: float, faststart: bool) -> None:
    path = tmp_path / "cut.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width = 64, 64
        for _ in range(50):
            noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(MediaError, match=r"cut.mp4 .*(incomplete|damaged)"):
        VideoFile(path)
