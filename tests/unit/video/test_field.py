"""Media of real users: each was read wrong, or only failed after the long work."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from latentsync.audio.driving_audio import prepare_driving_audio
from latentsync.audio.reader import read_audio
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError, DependencyError, MediaError
from latentsync.output.formats import FORMATS
from latentsync.output.video_writer import VideoWriter
from latentsync.video.video_file import VideoFile
from tests.support import ffmpeg
from tests.support.ffmpeg import needs_ffmpeg
from tests.support.numbered_clip import make_clip, number_of, tone
from tests.support.wav import make_wav

TONE = "aevalsrc='0.5*sin(2*PI*440*t)':s=44100:d="
PICTURE = "testsrc2=size=64x48:rate=25,trim=end_frame="


def test_old_pyav_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "a.mp4", range(3))
    monkeypatch.setattr(av, "__version__", "15.1.0")
    with pytest.raises(DependencyError, match=r'PyAV 15.1.0 is too old.* pip install "av>=16"'):
        VideoFile(tmp_path / "a.mp4")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    """Mirrored ones, too. PyAV knows no side data of type EXIF."""
    if suffix == "png" and av.library_versions["libavcodec"] < (62, 28):
        pytest.skip("FFmpeg 8.0 reads the EXIF of JPEG only")
    path = tmp_path / f"photo.{suffix}"
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[24:, :32], pixels[:24, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 95} if suffix == "jpg" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    for source in (path, BytesIO(path.read_bytes())):
        (frame,) = VideoFile(source).read([0])
        assert frame.shape == expected.shape
        assert np.abs(frame - expected).mean() < 3, "chroma is interpolated differently"


def test_animated_webp_is_refused_by_name(tmp_path: Path) -> None:
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:])
    with pytest.raises(MediaError, match=r"a.webp is an animated WebP.* Convert the file to MP4"):
        VideoFile(tmp_path / "a.webp")


@needs_ffmpeg
@pytest.mark.parametrize(("height", "matrix"), [(720, "bt709"), (718, "bt601")])
def test_untagged_hd_is_bt709(tmp_path: Path, height: int, matrix: str) -> None:
    path = tmp_path / "clip.mp4"
    source = f"testsrc2=size=960x{height}:rate=25,trim=end_frame=2"
    ffmpeg.run("-f", "lavfi", "-i", source, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path)
    video = VideoFile(path)
    (frame,) = video.read([1])
    expected = ffmpeg.frames(path, height, 960, matrix=matrix)[1]
    assert np.abs(frame.astype(int) - expected).mean() < 0.5
    assert any("color matrix" in warning for warning in video.warnings()) == (height == 720)


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["vp8", "ts"])
def test_picture_size_that_changes_is_scaled(tmp_path: Path, kind: str) -> None:
    """As in recorded calls (VP8) and broadcasts."""
    parts = []
    for width, height in ((64, 48), (32, 24)):
        part = tmp_path / f"{width}.{'ivf' if kind == 'vp8' else 'ts'}"
        codec = ("libvpx", "-b:v", "1M") if kind == "vp8" else ("mpeg2video", "-q:v", "2")
        source = f"testsrc2=size={width}x{height}:rate=25,trim=end_frame=5"
        ffmpeg.run("-f", "lavfi", "-i", source, "-c:v", *codec, part)
        parts.append(part)
    path = tmp_path / ("call.ivf" if kind == "vp8" else "call.ts")
    data = [part.read_bytes() for part in parts]
    path.write_bytes(b"".join(data) if kind == "ts" else data[0] + data[1][32:])
    if kind == "vp8":
        pytest.importorskip("av")
        frames = VideoFile(path)  # IVF carries the timestamps of both parts: the second repeats the first
        assert frames.frame_count == 5
        return
    video = VideoFile(path)
    shapes = {frame.shape for frame in video.read(range(video.frame_count))}
    assert shapes == {(48, 64, 3)}
    assert any("64 x 48 to 32 x 24" in warning for warning in video.warnings())


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_pixel_aspect_is_written_and_read(tmp_path: Path, format: object) -> None:
    path = tmp_path / f"a{format.suffix}"
    writer = VideoWriter(path, rate=Fraction(25), height=48, width=64, format=format, pixel_aspect=Fraction(4, 3))
    with writer:
        for level in range(3):
            writer.write(np.full((48, 64, 3), 80 * level, np.uint8))
    video = VideoFile(path)
    assert Fraction(video.width, video.height) * video.pixel_aspect == pytest.approx(64 / 48 * 4 / 3, rel=0.02)


@needs_ffmpeg
@pytest.mark.parametrize("rotation", [0, 90])
def test_pixel_aspect_turns_with_the_picture(tmp_path: Path, rotation: int) -> None:
    ffmpeg.run("-f", "lavfi", "-i", f"{PICTURE}3,setsar=4/3", "-c:v", "mpeg4", tmp_path / "a.mp4")
    ffmpeg.run("-i", tmp_path / "a.mp4", "-c", "copy", "-metadata:s:v:0", f"rotate={rotation}", tmp_path / "b.mp4")
    video = VideoFile(tmp_path / "b.mp4")
    assert video.pixel_aspect == (Fraction(3, 4) if rotation else Fraction(4, 3))


@needs_ffmpeg
@pytest.mark.parametrize("container", ["mov", "webm", "mkv"])
def test_alpha_of_video_is_read(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    codec = {
        "mov": ("prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"),
        "webm": ("libvpx-vp9", "-crf", "4", "-b:v", "0", "-pix_fmt", "yuva420p"),
        "mkv": ("ffv1", "-pix_fmt", "bgra"),
    }[container]
    fade = f"{PICTURE}6,format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='40*N'"
    ffmpeg.run("-f", "lavfi", "-i", fade, "-c:v", *codec, path)
    video = VideoFile(path)
    assert video.has_alpha
    for order in (range(6), range(5, -1, -1)):
        levels = [float(alpha.mean()) * 255 for alpha in video.read_alpha(order)]
        np.testing.assert_allclose(levels, [40 * i for i in order], atol=3)


def test_audio_whose_rate_and_channels_change_is_resampled(tmp_path: Path) -> None:
    """Voice lines joined by `cat`: the tone keeps its pitch, and the length is that of the parts."""
    path = tmp_path / "lines.mp3"
    for channels, rate in ((1, 44100), (2, 24000)):
        with av.open(str(tmp_path / "part.mp3"), "w") as out:
            stream = out.add_stream("libmp3lame", rate=rate, layout="stereo" if channels == 2 else "mono")
            samples = np.tile(tone(1, rate, 1.0), (channels, 1)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16p", layout=stream.layout.name)
            frame.sample_rate = rate
            for piece in av.AudioResampler("s16p", stream.layout.name, rate, 1152).resample(frame):
                out.mux(stream.encode(piece))
            out.mux(stream.encode(None))
        with path.open("ab") as joined:
            joined.write((tmp_path / "part.mp3").read_bytes())
    waveform = read_audio(path)
    assert (waveform.samples.shape[0], waveform.rate) == (2, 44100)
    assert float(waveform.duration_seconds) == pytest.approx(2.0, abs=0.12), "padding of the encoder"
    assert any("24,000 and 44,100 Hz" in warning for warning in waveform.warnings)
    for start in (0.3, 1.4):
        part = waveform.samples[0, round(start * 44100) : round((start + 0.4) * 44100)].numpy()
        peak = np.abs(np.fft.rfft(part)).argmax() / 0.4
        assert peak == pytest.approx(220, abs=3), f"Hz at {start} s"


@needs_ffmpeg
@pytest.mark.parametrize("container", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize("delay", [0.4, -0.2])
def test_sound_begins_on_the_clock_of_the_picture(tmp_path: Path, container: str, delay: float) -> None:
    path = tmp_path / f"a.{container}"
    beep = "aevalsrc='0.5*sin(2*PI*440*t)*between(t,0.5,0.7)':s=44100:d=1"
    offset = ("-itsoffset", abs(delay))
    ffmpeg.run(
        *("-f", "lavfi", *(offset if delay < 0 else ()), "-i", f"{PICTURE}20"),
        *("-f", "lavfi", *(offset if delay > 0 else ()), "-i", beep),
        *("-c:v", "libx264", "-fps_mode", "passthrough", "-c:a", "aac", path),
    )
    waveform = read_audio(path)
    loud = np.flatnonzero(waveform.samples[0].abs().numpy() > 0.1)
    assert loud[0] / waveform.rate == pytest.approx(0.5 + delay, abs=0.03), "an AAC frame"
    assert any("before its first frame" in warning for warning in waveform.warnings) == (delay < 0)


@needs_ffmpeg
def test_default_audio_track_is_read(tmp_path: Path) -> None:
    """The first track is silent, the second is flagged as default."""
    path = tmp_path / "two.mkv"
    ffmpeg.run(
        *("-f", "lavfi", "-i", "anullsrc=r=44100:cl=mono:d=1", "-f", "lavfi", "-i", f"{TONE}1"),
        *("-map", "0", "-map", "1", "-c:a", "flac", "-disposition:a:0", "0", "-disposition:a:1", "default", path),
    )
    assert float(read_audio(path).samples.abs().max()) > 0.4
    assert float(read_audio(path, 2).samples.abs().max()) > 0.4
    silent = read_audio(path, 1)
    with pytest.raises(AudioError, match=r"completely silent .* audio tracks are 1 \(flac.*\), 2 \(.*default\)"):
        prepare_driving_audio(silent)
    with pytest.raises(AudioError, match=r"has no audio track 3\. The audio tracks are 1"):
        read_audio(path, 3)


@needs_ffmpeg
def test_packed_b_frames_are_in_order(tmp_path: Path) -> None:
    path = tmp_path / "xvid.avi"
    make_clip(tmp_path / "a.mkv", range(24), codec="ffv1", container="matroska", options={"level": "3"})
    ffmpeg.run("-i", tmp_path / "a.mkv", "-c:v", "libxvid", "-bf", "2", "-g", "10", "-q:v", "2", path)
    video = VideoFile(path)
    expected = [number_of(frame) for frame in ffmpeg.frames(path, 48, 80)]
    assert len(expected) > 18
    for order in (range(len(expected)), range(len(expected) - 1, -1, -1), [7, 2, 15, 0, 11]):
        assert [number_of(frame) for frame in video.read(order)] == [expected[i] for i in order]
    assert not list(video.warnings())


def test_output_that_cannot_be_written_is_known_first(tmp_path: Path) -> None:
    from latentsync.errors import UsageError
    from latentsync.output.formats import format_named
    from latentsync.output.result import check_output

    make_clip(tmp_path / "odd.mp4", range(3), size=(49, 81))
    make_wav(tmp_path / "a.wav", tone(7, 8000), 8000)
    source, sound = VideoFile(tmp_path / "odd.mp4"), Waveform(read_audio(tmp_path / "a.wav").samples[:1], 8000)
    with pytest.raises(UsageError, match="does not support the odd size 81 x 49"):
        check_output(tmp_path / "out.mp4", source, sound, format_named("mp4 h265 10-bit"))
    with pytest.raises(AudioError, match="not 7"):
        check_output(tmp_path / "out.mp4", source, read_audio(tmp_path / "a.wav"), format_named("mp4 h264"))
    check_output(tmp_path / "out.mp4", source, sound, format_named("mp4 h264"))
    assert {path.name for path in tmp_path.iterdir()} == {"odd.mp4", "a.wav"}, "nothing is left"
