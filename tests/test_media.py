"""Reading: every frame carries its number as a pattern of bars, so that exactness is seen and not assumed."""

from __future__ import annotations

import gc
import itertools
import wave
from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from latentsync.audio.reader import read_audio
from latentsync.errors import AudioError, MediaError, UsageError
from latentsync.video import decoder
from latentsync.video.frame_source import ImageBatch
from latentsync.video.video_file import VideoFile

BITS = 10
BAR_PX = 8
HEIGHT, WIDTH = 48, BITS * BAR_PX
NTSC = Fraction(30000, 1001)


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The number in binary: black and white bars, the lowest bit on the left, in the upper half; the lower is grey."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[: height // 2, bit * BAR_PX : (bit + 1) * BAR_PX] = 255 * (number >> bit & 1)
    return picture


def number_of(picture: np.ndarray) -> int:
    row = (
        picture[: picture.shape[0] // 4, : BITS * BAR_PX].mean(axis=(0, 2)).reshape(BITS, BAR_PX)[:, 2:-2].mean(axis=1)
    )
    return sum(int(level > 128) << bit for bit, level in enumerate(row))


def numbers(pictures: Iterable[np.ndarray]) -> list[int]:
    return [number_of(picture) for picture in pictures]


def make_clip(
    path: Path | BytesIO,
    pts: Iterable[int],
    *,
    tick: Fraction = Fraction(1, 25),
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    container: str = "mp4",
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pixels: str = "yuv420p",
) -> None:
    with av.open(path if isinstance(path, BytesIO) else str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {"bf": "3", "g": "12", "crf": "10"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else pixels
        stream.codec_context.time_base = tick
        for number, shown_at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            frame.pts, frame.time_base = shown_at, tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """60 frames at 25 fps with B-frames, a keyframe every 12."""
    path = tmp_path / "clip.mp4"
    make_clip(path, range(60))
    return path


def make_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(len(samples))
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.T.astype("<i2").tobytes())


def turn(path: Path, matrix: tuple[int, ...]) -> None:
    """Write a display matrix into the mp4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(bytes(data))


def test_constant_rate(clip: Path) -> None:
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
        pytest.param([*range(59, -1, -3)], id="falling in steps"),
        pytest.param([0, 0, 5, 5, 5, 40, 41, 59], id="repeats and skips"),
        pytest.param([*range(60), *range(60)], id="loop"),
        pytest.param([31, 2, 58, 12, 11, 24, 23, 0, 59, 35], id="out of the blue"),
    ],
)
@pytest.mark.parametrize("held_pictures", [1, 5, 1000])
def test_any_order(clip: Path, order: list[int], held_pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "CACHE_BYTES", held_pictures * HEIGHT * WIDTH * 2)
    assert numbers(VideoFile(clip).read(iter(order))) == order


def test_falling_reads_decode_a_group_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    hold = decoder.FrameReader._hold

    def counting(reader: decoder.FrameReader, at: int, *rest: object, **options: bool) -> None:
        decoded.append(at)
        hold(reader, at, *rest, **options)

    monkeypatch.setattr(decoder.FrameReader, "_hold", counting)
    list(VideoFile(clip).read(range(59, -1, -1)))
    assert len(decoded) <= 60 + 12, "each group once, and the last one again, since a single frame was asked for first"


def test_held_pictures_stay_within_their_room(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "CACHE_BYTES", 4 * HEIGHT * WIDTH * 2)
    most = 0
    hold = decoder.FrameReader._hold

    def watching(reader: decoder.FrameReader, *rest: object, **options: bool) -> None:
        nonlocal most
        hold(reader, *rest, **options)
        most = max(most, len(reader._held))

    monkeypatch.setattr(decoder.FrameReader, "_hold", watching)
    list(VideoFile(clip).read([*range(60), *range(59, -1, -1)]))
    assert 1 < most <= 8


def test_indices_are_taken_one_at_a_time(clip: Path) -> None:
    taken: list[int] = []

    def asking() -> Iterable[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    frames = VideoFile(clip).read(asking())
    assert numbers(itertools.islice(frames, 3)) == [0, 1, 2]
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("index", [-1, 60])
def test_an_index_out_of_range_is_named(clip: Path, index: int) -> None:
    with pytest.raises(UsageError, match=rf"clip.mp4: there is no frame {index}; it has 60"):
        list(VideoFile(clip).read([index]))


def test_variable_rate(tmp_path: Path) -> None:
    shown_at = [0, 40, 80, 200, 210, 333, 500, 900, 940, 1000]
    path = tmp_path / "vfr.mkv"
    make_clip(path, shown_at, tick=Fraction(1, 1000), container="matroska", options={"bf": "2", "g": "4", "crf": "10"})
    video = VideoFile(path)
    assert video.frame_count == 10
    assert abs(video.rate - 9) < Fraction(1, 2)
    assert [video.index_at(Fraction(t, 1000)) for t in shown_at] == list(range(10))
    assert [video.index_at(Fraction(t - 2, 1000)) for t in shown_at[1:]] == list(range(9))
    assert numbers(video.read(range(9, -1, -1))) == list(range(9, -1, -1))
    assert 1 < video.duration_seconds < Fraction(6, 5)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(24), NTSC, Fraction(30), Fraction(50), NTSC * 2])
@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_exact_rates(tmp_path: Path, rate: Fraction, container: str) -> None:
    """Matroska rounds timestamps to 1 ms and MPEG-TS to 1/90000 s; the rate is exact all the same."""
    path = tmp_path / "clip"
    make_clip(path, range(120), tick=1 / rate, rate=rate, container=container)
    video = VideoFile(path)
    assert (video.rate, video.frame_count, video.duration_seconds) == (rate, 120, 120 / rate)
    assert [video.index_at(i / rate) for i in range(120)] == list(range(120))
    assert numbers(video.read([5, 100, 99, 98, 0, 119])) == [5, 100, 99, 98, 0, 119]


def test_instants_beyond_the_ends(clip: Path) -> None:
    video = VideoFile(clip)
    assert video.index_at(Fraction(-1)) == 0
    assert video.index_at(Fraction(1000)) == 59


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_time_starts_with_the_first_frame(tmp_path: Path, container: str) -> None:
    path = tmp_path / "late"
    make_clip(path, range(100, 140), container=container)
    video = VideoFile(path)
    assert (video.frame_count, video.duration_seconds) == (40, Fraction(40, 25))
    assert [video.index_at(Fraction(i, 25)) for i in range(40)] == list(range(40))
    assert numbers(video.read([39, 38, 0, 1])) == [39, 38, 0, 1]


def test_trim(clip: Path) -> None:
    video = VideoFile(clip, start_seconds=Fraction(14, 25), duration_seconds=Fraction(20, 25))
    assert (video.frame_count, video.duration_seconds) == (20, Fraction(20, 25))
    assert numbers(video.read(range(20))) == list(range(14, 34))
    assert numbers(video.read([19, 18, 0])) == [33, 32, 14]
    assert video.index_at(Fraction(0)) == 0
    assert video.index_at(Fraction(9)) == 19
    between = VideoFile(clip, start_seconds=Fraction(1, 50))
    assert number_of(next(between.read([0]))) == 1


@pytest.mark.parametrize(("start", "duration"), [(Fraction(3), None), (Fraction(-1), None), (Fraction(0), Fraction(0))])
def test_a_part_that_holds_nothing(clip: Path, start: Fraction, duration: Fraction | None) -> None:
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
def test_rotation(clip: Path, matrix: tuple[int, ...], anticlockwise: int) -> None:
    plain = next(VideoFile(clip).read([37]))
    turn(clip, matrix)
    video = VideoFile(clip)
    turned = next(video.read([37]))
    assert turned.shape == (video.height, video.width, 3)
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, np.rot90(plain, anticlockwise))


def test_odd_size(tmp_path: Path) -> None:
    make_clip(tmp_path / "odd.mp4", range(20), size=(49, 83))
    video = VideoFile(tmp_path / "odd.mp4")
    assert (video.height, video.width) == (49, 83)
    assert numbers(video.read([19, 3])) == [19, 3]


def test_bytes_in_memory(clip: Path) -> None:
    data = BytesIO(clip.read_bytes())
    data.seek(17)
    video = VideoFile(data)
    first, second = video.read(range(60)), video.read(range(59, -1, -1))
    pairs = [(number_of(a), number_of(b)) for a, b in zip(first, second, strict=True)]
    assert pairs == [(i, 59 - i) for i in range(60)]
    assert data.tell() == 17


def test_two_readers_at_once(clip: Path) -> None:
    video = VideoFile(clip)
    assert [
        (number_of(a), number_of(b)) for a, b in zip(video.read(range(50)), video.read(range(10, 60)), strict=True)
    ] == [(i, i + 10) for i in range(50)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_a_dropped_read_closes_its_file(clip: Path) -> None:
    video = VideoFile(clip)
    gc.collect()
    before = open_files()
    frames = video.read(range(60))
    next(frames)
    assert open_files() == before + 1
    del frames
    assert open_files() == before


@pytest.mark.parametrize("codec", ["libvpx-vp9", "ffv1", "mpeg4", "libx265"])
def test_other_codecs(tmp_path: Path, codec: str) -> None:
    make_clip(tmp_path / "clip.mkv", range(40), codec=codec, container="matroska", options={"g": "10"})
    order = [*range(40), *range(39, -1, -1), 17]
    assert numbers(VideoFile(tmp_path / "clip.mkv").read(order)) == order


def test_what_is_no_video(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    make_wav(tmp_path / "sound.wav", np.zeros((1, 1600)), 16000)
    for path, found in {
        "missing.mp4": "no such file",
        "empty.mp4": "cannot be read as video",
        "text.mp4": "cannot be read as video",
        "sound.wav": "has no video, only audio",
        ".": "folder",
    }.items():
        with pytest.raises(MediaError, match=found) as caught:
            VideoFile(tmp_path / path)
        assert (tmp_path / path).name in str(caught.value)
    with pytest.raises(MediaError, match="the media in memory: cannot be read"):
        VideoFile(BytesIO(b"nothing"))


def test_frames_that_claim_to_be_hours_apart(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mkv", [0, 1, 5_000_000], container="matroska")
    with pytest.raises(MediaError, match=r"clip.mkv: its timestamps say that its frames are 100000 s apart: .*damaged"):
        VideoFile(tmp_path / "clip.mkv")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("faststart", [False, True])
def test_a_truncated_mp4(tmp_path: Path, kept: float, faststart: bool) -> None:
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
    with pytest.raises(MediaError, match=r"cut.mp4: .*(cut short|damaged)"):
        VideoFile(path)


def test_image_batch() -> None:
    images = torch.rand(5, 6, 7, 3)
    batch = ImageBatch(images, Fraction(24))
    assert (batch.frame_count, batch.height, batch.width, batch.rate) == (5, 6, 7, 24)
    assert batch.duration_seconds == Fraction(5, 24)
    assert [batch.index_at(Fraction(i, 24)) for i in range(-1, 7)] == [0, 0, 1, 2, 3, 4, 4, 4]
    for i, picture in zip([4, 0, 0], batch.read(iter([4, 0, 0])), strict=True):
        assert picture.dtype == np.float32
        assert picture.flags.c_contiguous
        np.testing.assert_array_equal(picture, images[i].numpy())
    with pytest.raises(UsageError, match="no frame 5"):
        list(batch.read([5]))


def test_image_batch_keeps_alpha_and_takes_half_floats() -> None:
    images = torch.rand(2, 4, 4, 4).half()
    batch = ImageBatch(images, Fraction(25))
    assert batch.alpha is not None
    assert torch.equal(batch.alpha, images[..., 3])
    np.testing.assert_array_equal(next(batch.read([1])), images[1, ..., :3].float().numpy())
    assert ImageBatch(images[..., :3], Fraction(25)).alpha is None


@pytest.mark.parametrize("shape", [(4, 4, 3), (0, 4, 4, 3), (1, 4, 4, 1)])
def test_image_batch_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(MediaError, match="frames, height, width"):
        ImageBatch(torch.zeros(shape), Fraction(25))


def tone(channels: int, rate: int, seconds: float = 1.0) -> np.ndarray:
    """A different tone in each channel, at half of full scale, int16 (channels, samples)."""
    time = np.arange(int(rate * seconds)) / rate
    return np.stack([np.sin(2 * np.pi * 220 * (c + 1) * time) * 16384 for c in range(channels)])


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (2, 48000), (6, 48000)])
def test_wav_is_exact(tmp_path: Path, channels: int, rate: int) -> None:
    samples = tone(channels, rate).astype(np.int16)
    make_wav(tmp_path / "a.wav", samples, rate)
    heard = read_audio(tmp_path / "a.wav")
    assert heard.rate == rate
    np.testing.assert_array_equal(heard.samples.numpy(), samples / np.float32(32768))
    assert torch.equal(read_audio(BytesIO((tmp_path / "a.wav").read_bytes())).samples, heard.samples)


@pytest.mark.parametrize(
    ("name", "codec", "sample_format"),
    [
        ("a.mp3", "libmp3lame", "s16p"),
        ("a.m4a", "aac", "fltp"),
        ("a.flac", "flac", "s16"),
        ("a.mp4", "aac", "fltp"),
        ("a.ogg", "libopus", "s16"),
    ],
)
def test_compressed_sound(tmp_path: Path, name: str, codec: str, sample_format: str) -> None:
    write_sound(tmp_path / name, codec, sample_format, tone(2, 48000).astype(np.int16))
    heard = read_audio(tmp_path / name)
    assert heard.rate == 48000
    assert heard.samples.shape[0] == 2
    assert abs(heard.samples.shape[1] - 48000) <= 1152, "within one frame of the longest, mp3's"
    middle = heard.samples[:, 20000:30000]
    assert torch.allclose(middle.abs().amax(dim=1), torch.tensor(0.5), atol=0.03), "lossy, but as loud"


def write_sound(path: Path, codec: str, sample_format: str, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts = 48000, 0
        for piece in av.AudioResampler(sample_format, "stereo", 48000, stream.frame_size or 1024).resample(frame):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))


def test_what_has_no_sound(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    make_wav(tmp_path / "empty.wav", np.zeros((1, 0)), 16000)
    for name, found in {
        "clip.mp4": "has no sound",
        "text.wav": "cannot be read as sound",
        "missing.wav": "no such file",
        "empty.wav": "empty",
    }.items():
        with pytest.raises(AudioError, match=f"{name}: .*{found}"):
            read_audio(tmp_path / name)


@pytest.mark.parametrize(("name", "count", "rate"), [("demo1", 250, 25), ("demo2", 502, 25), ("demo3", 600, 30)])
def test_real_clips(shared: Path, name: str, count: int, rate: int) -> None:
    path = shared / "media" / f"{name}_video.mp4"
    video = VideoFile(path)
    assert (video.frame_count, video.rate, video.duration_seconds) == (count, rate, Fraction(count, rate))
    wanted = [count - 1, count - 2, count // 2, 7, 3, 0, 40]
    plain: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                plain[i] = frame.to_ndarray(format="rgb24")
    for i, picture in zip(wanted, video.read(wanted), strict=True):
        np.testing.assert_array_equal(picture, plain[i])
