"""Writing videos: the content of the file, how players read it, and that a failed write leaves nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from latentsync.audio.reader import read_audio
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError, MediaError, UsageError
from latentsync.output.formats import FORMATS, H264, Format, available_formats, format_for_suffix, format_named
from latentsync.output.video_writer import VideoWriter, check_audio_codec, encoder_converter, to_video_frame
from latentsync.video.color import BT709, ColorSpace, to_uint8
from latentsync.video.video_file import VideoFile
from tests.support.encoder_pixels import visible_bytes

NTSC = Fraction(30000, 1001)
AAC_FRAME_SAMPLES = 1024


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth frame whose brightness is its number."""
    ramp = np.linspace(0, 40, width)[None, :, None] + np.array([10, 40, 0])
    return np.broadcast_to(ramp + 4 * number, (height, width, 3)).astype(np.uint8)


def tone(channels: int, rate: int, seconds: float) -> Waveform:
    time = torch.arange(round(rate * seconds)) / rate
    return Waveform(torch.stack([0.5 * torch.sin(2 * torch.pi * 220 * (c + 1) * time) for c in range(channels)]), rate)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("rate", [Fraction(25), NTSC, Fraction(24000, 1001), Fraction(30), NTSC * 2, Fraction(123, 10)])
def test_writer_frames_and_rate(tmp_path: Path, rate: Fraction) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, rate=rate, height=48, width=64) as writer:
        for number in range(40):
            writer.write(picture(number))
    video = VideoFile(path)
    assert (video.frame_count, video.rate, video.height, video.width) == (40, rate, 48, 64)
    assert video.duration_seconds == 40 / rate
    for number, frame in enumerate(video.read(range(40))):
        assert abs(frame.astype(int) - picture(number)).mean() < 2, (
            "closer to its image than to the next, 4 levels away"
        )
    assert files(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("size", [(49, 64), (48, 65), (49, 65)])
def test_writer_keeps_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    with VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=size[0], width=size[1]) as writer:
        writer.write(picture(3, *size))
    frame = next(VideoFile(tmp_path / "out.mp4").read([0]))
    assert frame.shape == (*size, 3)
    assert abs(frame.astype(int) - picture(3, *size)).mean() < 1.5


def test_writer_rounds_floats(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64, crf=1) as writer:
        writer.write(np.full((48, 64, 3), 99.6 / 255, np.float32))
        writer.write(np.full((48, 64, 3), 1.5, np.float32))
    dark, bright = VideoFile(tmp_path / "out.mp4").read([0, 1])
    assert abs(dark.astype(int) - 100).max() <= 1
    assert bright.min() >= 254


def test_writer_tags_colors_as_written(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    color = np.broadcast_to(np.array([200, 40, 90], np.uint8), (48, 64, 3))
    with VideoWriter(path, rate=Fraction(25), height=48, width=64, crf=1) as writer:
        writer.write(color)
    assert abs(next(VideoFile(path).read([0])).astype(int) - color).max() <= 2
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        luma = np.asarray(next(container.decode(video=0)).planes[0])[0]
    assert luma == pytest.approx(16 + 219 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 90) / 255, abs=1)


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (1, 44100), (2, 44100), (2, 48000), (6, 48000)])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 2.345])
def test_writer_audio_keeps_its_length(tmp_path: Path, channels: int, rate: int, seconds: float) -> None:
    """The video lasts one second. The audio ends before it, with it, or after it."""
    waveform = tone(channels, rate, seconds)
    with VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64, waveform=waveform) as writer:
        for number in range(25):
            writer.write(picture(number))
    audio = read_audio(tmp_path / "out.mp4")
    assert (audio.rate, audio.samples.shape[0]) == (rate, channels)
    assert abs(audio.samples.shape[1] - waveform.samples.shape[1]) < AAC_FRAME_SAMPLES
    assert VideoFile(tmp_path / "out.mp4").frame_count == 25
    if seconds >= 1:
        start, stop = rate // 4, rate // 2
        lost = audio.samples[:1, start:stop] - waveform.samples[:1, start:stop]
        assert lost.abs().mean() < 0.05, "a shift of half a frame would cost 0.3"


def test_writer_interleaves_audio(tmp_path: Path) -> None:
    """Frames and audio of the same time are close together in the file."""
    with VideoWriter(
        tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64, waveform=tone(1, 48000, 8.0)
    ) as writer:
        for number in range(200):
            writer.write(picture(number % 50))
    with av.open(str(tmp_path / "out.mp4")) as container:
        places: dict[str, list[tuple[float, int]]] = {"video": [], "audio": []}
        for packet in container.demux():
            if packet.size:
                places[packet.stream.type].append((float(packet.dts * packet.time_base), packet.pos))
    spans = {kind: (min(p for _, p in packets), max(p for _, p in packets)) for kind, packets in places.items()}
    assert spans["audio"][0] < spans["video"][1]
    assert spans["video"][0] < spans["audio"][1]


def test_writer_tags_and_faststart(tmp_path: Path) -> None:
    tags = {"comment": "made of this and that", "prompt": '{"1": {}}', "AI-modified": "yes"}
    with VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64, tags=tags) as writer:
        writer.write(picture(0))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert {name: container.metadata.get(name) for name in tags} == tags
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def write_and_fail(path: Path, failure: type[BaseException]) -> None:
    with VideoWriter(path, rate=Fraction(25), height=48, width=64, waveform=tone(1, 16000, 1.0)) as writer:
        for number in range(10):
            writer.write(picture(number))
        assert len([name for name in files(path.parent) if name != path.name]) == 1, "one temporary file"
        raise failure


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, type("Cancelled", (BaseException,), {})])
def test_writer_failure_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure):
        write_and_fail(tmp_path / "out.mp4", failure)
    assert files(tmp_path) == []


def test_writer_failure_keeps_older_file(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("older")
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path / "out.mp4", RuntimeError)
    assert files(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "older"
    with VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64) as writer:
        writer.write(picture(0))
    assert VideoFile(tmp_path / "out.mp4").frame_count == 1
    assert files(tmp_path) == ["out.mp4"]


def test_writer_two_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, rate=Fraction(25), height=48, width=64) as first:
        first.write(picture(0))
        with VideoWriter(path, rate=Fraction(25), height=48, width=64) as second:
            second.write(picture(1))
            second.write(picture(2))
        assert VideoFile(path).frame_count == 2
    assert VideoFile(path).frame_count == 1


def test_writer_without_frames_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match=r"out.mp4 has no frames, so LatentSync did not write this file"),
        VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64),
    ):
        pass
    assert files(tmp_path) == []


def test_writer_other_frame_size_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match=r"Internal error: out.mp4 received frames of different sizes"),
        VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64) as writer,
    ):
        writer.write(picture(0, 48, 66))
    assert files(tmp_path) == []


def test_writer_names_missing_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match=r"nowhere.*cannot be written"),
        VideoWriter(tmp_path / "nowhere" / "out.mp4", rate=Fraction(25), height=48, width=64),
    ):
        pass


def write_until_it_fails(writer: VideoWriter) -> None:
    with writer:
        for number in range(50):
            writer.write(picture(number))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_writer_names_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64)
    writer._temporary.symlink_to("/dev/full")
    with pytest.raises(MediaError, match=r"out.mp4 cannot be written"):
        write_until_it_fails(writer)
    assert files(tmp_path) == []


def test_writer_names_value_it_cannot_write(tmp_path: Path) -> None:
    for wrong in ({"rate": Fraction(0)}, {"height": 0}, {"crf": 52}):
        settings = {"rate": Fraction(25), "height": 48, "width": 64} | wrong
        with pytest.raises(UsageError):
            VideoWriter(tmp_path / "out.mp4", **settings)
    for waveform in (tone(7, 48000, 1), tone(1, 48000, 0)):
        with pytest.raises(AudioError):
            VideoWriter(tmp_path / "out.mp4", rate=Fraction(25), height=48, width=64, waveform=waveform)


def write(path: Path, format: Format, frames: Iterable[np.ndarray], **options: Any) -> Path:
    frames = list(frames)
    height, width = frames[0].shape[:2]
    with VideoWriter(path, format=format, height=height, width=width, **({"rate": NTSC} | options)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize("format", available_formats(), ids=str)
@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
def test_writer_every_format_is_read_back(tmp_path: Path, format: Format, size: tuple[int, int]) -> None:
    if size[0] % 2 and not format.odd_pix_fmt:
        with pytest.raises(UsageError, match="odd size 65 x 49"):
            write(tmp_path / f"out{format.suffix}", format, [picture(0, *size)])
        return
    waveform = tone(2, 44100, 1.7)
    tags = {"prompt": '{"1": {}}', "comment": "made of this and that"}
    path = write(
        tmp_path / f"out{format.suffix}", format, [picture(i, *size) for i in range(40)], waveform=waveform, tags=tags
    )
    video, audio = VideoFile(path), read_audio(path)
    assert (video.frame_count, video.rate, video.height, video.width) == (40, NTSC, *size)
    for number, frame in enumerate(video.read(range(40))):
        off = abs(to_uint8(frame).astype(int) - picture(number, *size)).mean()
        assert off < 2, "closer to its image than to the next, 4 levels away"
    # Lossy audio ends with a full frame of its codec, 1024 samples for AAC. Lossless audio is exact.
    lossy = AAC_FRAME_SAMPLES / 44100 if format.audio.bits_per_second else 0
    assert abs(audio.duration_seconds - waveform.duration_seconds) <= lossy
    assert audio.samples.shape[0] == 2
    with av.open(str(path)) as container:
        written = {name.lower(): value for name, value in container.metadata.items()}
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc) == (1, 1)
        assert context.colorspace == (0 if format.encoder == "ffv1" else 1)
    assert {name: written.get(name) for name in tags} == tags


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("format", available_formats(), ids=str)
def test_writer_short_clip_is_complete(tmp_path: Path, format: Format, count: int) -> None:
    """Ten times, because x265 takes the decoding times of so few frames from uninitialized memory."""
    for _ in range(10):
        path = write(tmp_path / f"out{format.suffix}", format, [picture(i) for i in range(count)])
        assert VideoFile(path).frame_count == count


@pytest.mark.parametrize(
    "format", [format for format in available_formats() if format.suffix in (".mp4", ".mov")], ids=lambda f: f.name
)
def test_writer_file_plays_before_it_is_complete(tmp_path: Path, format: Format) -> None:
    data = write(tmp_path / f"out{format.suffix}", format, [picture(0)]).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_writer_ffv1_is_lossless(tmp_path: Path, dtype: type, channels: int) -> None:
    full = np.iinfo(dtype).max
    frames = np.random.default_rng(0).integers(0, full, (3, 48, 65, channels), dtype=dtype, endpoint=True)
    waveform = Waveform(torch.randint(-(2**23), 2**23, (2, 22050)) / 2**23, 22050)  # 24 bits
    path = write(tmp_path / "out.mkv", format_named("mkv ffv1 lossless"), frames, waveform=waveform)
    pixels = {(1, 3): "rgb24", (1, 4): "rgba", (2, 3): "rgb48le", (2, 4): "rgba64le"}[
        np.dtype(dtype).itemsize, channels
    ]
    with av.open(str(path)) as container:
        read = [frame.to_ndarray(format=pixels) for frame in container.decode(video=0)]
    np.testing.assert_array_equal(np.stack(read), frames)
    audio = read_audio(path)
    assert audio.rate == 22050
    assert torch.equal(audio.samples, waveform.samples)


@pytest.mark.parametrize("format", [format for format in available_formats() if format.alpha_pix_fmt], ids=str)
def test_writer_keeps_alpha(tmp_path: Path, format: Format) -> None:
    alpha = np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None].repeat(48, axis=0)
    frames = [np.concatenate([picture(i), alpha], axis=-1) for i in range(3)]
    path = write(tmp_path / f"out{format.suffix}", format, frames)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r") if format.encoder == "libvpx-vp9" else stream.codec_context
        packets = list(container.demux(stream))
    alphas = [frame.to_ndarray(format="rgba")[..., 3] for packet in packets for frame in decoder.decode(packet)]
    assert len(alphas) == 3
    assert abs(alphas[1].astype(int) - alpha[..., 0]).max() <= 4, "lossy codecs"


@pytest.mark.parametrize("format", [format for format in available_formats() if not format.alpha_pix_fmt], ids=str)
def test_writer_refuses_alpha_format_cannot_hold(tmp_path: Path, format: Format) -> None:
    with pytest.raises(UsageError, match="does not support an alpha channel"):
        write(tmp_path / f"out{format.suffix}", format, [np.zeros((48, 64, 4), np.uint8)])
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["mp4 h264 10-bit", "mp4 h265 10-bit", "mov prores 4444"])
def test_writer_writes_10_bits(tmp_path: Path, name: str) -> None:
    """A ramp of 256 steps within 64 levels of 8 bits."""
    ramp = np.linspace(0.3, 0.55, 256, dtype=np.float32)[None, :, None].repeat(48, axis=0).repeat(3, axis=2)
    path = write(tmp_path / "out.mp4", format_named(name), [ramp], crf=0)
    with av.open(str(path)) as container:
        read = next(container.decode(video=0)).to_ndarray(format="rgb48le")[20, :, 0]
    assert len(np.unique(read)) > 128, "8 bits would hold 64 of them"


def test_writer_accepts_any_sample_rate(tmp_path: Path) -> None:
    for name in ("mp4 h264", "webm vp9"):
        format = format_named(name)
        path = write(tmp_path / f"out{format.suffix}", format, [picture(0)] * 30, waveform=tone(1, 12345, 1.0))
        audio = read_audio(path)
        assert audio.rate == 48000
        assert float(audio.duration_seconds) == pytest.approx(1, abs=AAC_FRAME_SAMPLES / 48000)


def test_writer_carries_source_colors(tmp_path: Path) -> None:
    path = write(tmp_path / "out.mp4", H264, [picture(5)], color=ColorSpace(primaries=9, transfer=16, matrix=9), crf=1)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace) == (9, 16, 9)
        luma = np.asarray(next(container.decode(video=0)).planes[0])[0]
    red, green, blue = picture(5)[0, 0] / 255
    assert luma == pytest.approx(16 + 219 * (0.2627 * red + 0.6780 * green + 0.0593 * blue), abs=1)


@pytest.mark.parametrize(
    "color",
    [ColorSpace(), ColorSpace(6, 6, 6), ColorSpace(5, 6, 5), ColorSpace(9, 16, 9)],
    ids=["HD", "NTSC", "PAL", "HDR"],
)
def test_writer_colors_survive_read_and_write(tmp_path: Path, color: ColorSpace) -> None:
    first = VideoFile(write(tmp_path / "a.mp4", H264, [picture(5)], color=color, crf=1))
    assert first.color == color
    again = VideoFile(write(tmp_path / "b.mp4", H264, first.read([0]), color=first.color, crf=1))
    assert again.color == color
    assert abs(next(again.read([0])).astype(int) - picture(5)).max() <= 4, "luma and chroma are rounded to 8 bits twice"


def test_writer_untagged_source_is_bt709() -> None:
    assert ColorSpace.from_stream(2, 2, 2) == ColorSpace()
    assert ColorSpace.from_stream(9, 16, 0) == ColorSpace(9, 16, 1), "RGB has primaries, and needs a matrix"


def test_writer_default_quality_equals_plain_encode(tmp_path: Path) -> None:
    """Compare with x264 at the same crf through PyAV alone."""
    photograph = astronaut()
    frames = [np.ascontiguousarray(photograph[i : i + 240, 100:420]) for i in range(10)]
    write(tmp_path / "out.mp4", H264, frames)
    with av.open(str(tmp_path / "plain.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    ours, plain = (
        psnr(np.stack(list(VideoFile(tmp_path / name).read(range(10)))), np.stack(frames))
        for name in ("out.mp4", "plain.mp4")
    )
    assert ours > plain - 0.5


def psnr(decoded: np.ndarray, original: np.ndarray) -> float:
    """Peak signal to noise in dB."""
    return float(10 * np.log10(255**2 / np.mean((decoded.astype(float) - original) ** 2)))


def test_formats_are_found_by_name_and_suffix() -> None:
    assert format_for_suffix(".MP4") is H264
    assert {format_for_suffix(suffix).suffix for suffix in (".webm", ".mov", ".mkv")} == {".webm", ".mov", ".mkv"}
    with pytest.raises(
        UsageError, match=r'ends in "\.avi", which is not a video format. Use a name that ends in \.mp4'
    ):
        format_for_suffix(".avi")
    with pytest.raises(UsageError, match=r'"gif" is not available. Choose one of mp4 h264'):
        format_named("gif")


def test_every_format_is_available() -> None:
    assert available_formats() == FORMATS, "PyAV's wheels have all of these encoders"


def test_audio_codec_check_names_channels_and_remedy() -> None:
    check_audio_codec(tone(2, 48000, 1), H264.audio)
    with pytest.raises(AudioError, match=r"aac supports 1, 2, .* audio channels, not 7\. Convert the recording"):
        check_audio_codec(tone(7, 48000, 1), H264.audio)
    with pytest.raises(AudioError, match="audio of the result is empty"):
        check_audio_codec(tone(1, 48000, 0), H264.audio)


def test_writer_logs_codec_and_resampling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "latentsync"):
        write(tmp_path / "out.mp4", H264, [picture(0)], waveform=tone(1, 12345, 0.1))
    assert "resampling the audio from 12345 Hz to 48000 Hz for aac" in caplog.messages
    assert "writing out.mp4: libx264 as yuv420p, 64 x 48 at 30000/1001 fps" in caplog.messages


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_writer_gives_the_encoder_equal_pixels(format: Format, dtype: type) -> None:
    """Twenty times, because swscale with several threads corrupts pixels now and then."""
    frame = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (234, 310, 3), dtype)
    pix_fmt = format.pix_fmt_for(234, 310, alpha=False, high_depth=dtype == np.uint16)
    planes = {visible_bytes(to_video_frame(frame, encoder_converter(pix_fmt, BT709))) for _ in range(20)}
    assert len(planes) == 1
