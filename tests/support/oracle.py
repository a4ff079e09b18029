"""A matrix of small media made by ffmpeg, and what our readers make of them beside ffmpeg's own output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np

from latentsync.audio.reader import read_audio
from latentsync.errors import LatentSyncError
from latentsync.video.video_file import VideoFile
from tests.support import ffmpeg

WIDTH, HEIGHT = 64, 48
FRAMES = 18
MAX_MEAN_ERROR = 1.5
"""Levels of 255. Neighboring frames differ by 6 and more. ffmpeg 5 and PyAV's FFmpeg 8 round chroma differently."""

CODECS: dict[str, tuple[str, ...]] = {
    "h264": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "8"),
    "hevc": ("-c:v", "libx265", "-preset", "ultrafast", "-crf", "8", "-x265-params", "log-level=none:pools=1"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "2"),
    "xvid": ("-c:v", "libxvid", "-q:v", "2"),
    "mpeg2": ("-c:v", "mpeg2video", "-q:v", "2"),
    "vp8": ("-c:v", "libvpx", "-crf", "6", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8"),
    "vp9": ("-c:v", "libvpx-vp9", "-crf", "6", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "8"),
    "prores": ("-c:v", "prores_ks"),
    "ffv1": ("-c:v", "ffv1"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "2"),
    "theora": ("-c:v", "libtheora", "-q:v", "9"),
}
CONTAINERS: dict[str, tuple[str, ...]] = {
    "mp4": ("h264", "hevc", "mpeg4", "vp9"),
    "mov": ("h264", "prores", "mjpeg"),
    "mkv": ("h264", "hevc", "mpeg4", "vp8", "vp9", "ffv1", "mpeg2", "theora"),
    "webm": ("vp8", "vp9"),
    "avi": ("h264", "mpeg4", "xvid", "mjpeg", "ffv1"),
    "ts": ("h264", "hevc", "mpeg2"),
    "flv": ("h264",),
    "mpg": ("mpeg2",),
    "ogv": ("theora",),
}
PIX_FMTS: dict[str, tuple[str, ...]] = {
    "h264": ("yuv420p", "yuv444p", "yuv420p10le"),
    "hevc": ("yuv420p", "yuv420p10le"),
    "vp9": ("yuv420p", "yuv444p"),
    "prores": ("yuv422p10le", "yuva444p10le"),
    "ffv1": ("yuv420p", "rgb48le", "yuva420p", "bgra"),
    "mjpeg": ("yuvj420p", "yuvj422p"),
}
REORDERING = ("h264", "hevc", "mpeg4", "xvid", "mpeg2")
RATES = ("25", "30000/1001", "12", "60")
COLORS: dict[str, tuple[str, ...]] = {
    "untagged": (),
    "709": ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"),
    "2020": ("-colorspace", "bt2020nc", "-color_primaries", "bt2020", "-color_trc", "arib-std-b67"),
    "full": ("-colorspace", "smpte170m", "-color_range", "pc"),
}
ROTATIONS = (0, 90, 180, 270)
ASPECTS = ("1", "4/3", "8/9")
DELAYS = (0.0, 0.2, -0.2)
"""Seconds by which the sound starts after the picture."""


@dataclass(frozen=True)
class Case:
    container: str
    codec: str
    pix_fmt: str
    rate: str
    color: str
    b_frames: int
    rotation: int
    aspect: str
    delay: float

    def __str__(self) -> str:
        return (
            f"{self.container}-{self.codec}-{self.pix_fmt}-{self.rate.replace('/', ':')}-{self.color}-b{self.b_frames}"
            f"-r{self.rotation}-a{self.aspect.replace('/', ':')}-d{self.delay:g}"
        )


def matrix() -> list[Case]:
    """Every container, codec, pixel format, rate and number of B-frames; the other sides take turns."""
    cases: list[Case] = []
    for container, codecs in CONTAINERS.items():
        for codec in codecs:
            b_frames = (0, 2) if codec in REORDERING else (0,)
            for pix_fmt, rate, b, _ in product(PIX_FMTS.get(codec, ("yuv420p",)), RATES, b_frames, range(2)):
                if codec in ("mpeg2",) and rate == "12":
                    continue  # no such rate in MPEG-2
                n = len(cases)
                is_rgb = "rgb" in pix_fmt or "bgr" in pix_fmt
                color = "untagged" if is_rgb or codec == "mjpeg" else list(COLORS)[n % len(COLORS)]
                rotation = ROTATIONS[n // 2 % 4] if container in ("mp4", "mov") else 0
                cases.append(
                    Case(container, codec, pix_fmt, rate, color, b, rotation, ASPECTS[n % 3], DELAYS[n // 3 % 3])
                )
    return cases


def sample(count: int) -> list[Case]:
    """A fixed part of the matrix with every container and codec in it."""
    cases = matrix()
    first = {(case.container, case.codec): case for case in reversed(cases)}
    rest = [case for case in cases if case not in first.values()]
    return [*first.values(), *rest[:: max(len(rest) // max(count - len(first), 1), 1)]][:count]


def make(case: Case, folder: Path) -> Path:
    """Write the media of a case with ffmpeg: a moving test picture and a sweep that starts and ends with silence."""
    plain = folder / f"plain.{case.container}"
    picture = f"testsrc2=size={WIDTH}x{HEIGHT}:rate={case.rate},trim=end_frame={FRAMES},setsar={case.aspect}"
    seconds = FRAMES / Fraction(case.rate)
    tone = f"aevalsrc='0.5*sin(2*PI*(300*t+200*t*t))':s=44100:d={float(seconds):.4f}"
    reordered = ("-bf", case.b_frames, "-g", 6) if case.codec in REORDERING else ("-g", 6)
    sounds = {
        "webm": ("-c:a", "libopus"),
        "ogv": ("-c:a", "libvorbis"),
        "avi": ("-c:a", "pcm_s16le"),
        "mpg": ("-c:a", "mp2"),
        "ts": ("-c:a", "mp2"),
    }
    offsets = {True: ("-itsoffset", abs(case.delay)), False: ()}
    picture_offset, sound_offset = offsets[case.delay < 0], offsets[case.delay > 0]
    if case.container == "avi":
        picture_offset = sound_offset = ()  # AVI has no start times
    ffmpeg.run(
        *("-f", "lavfi", *picture_offset, "-i", picture, "-f", "lavfi", *sound_offset, "-i", tone),
        *("-map", "0:v", "-map", "1:a", *CODECS[case.codec], *reordered, "-pix_fmt", case.pix_fmt),
        *(*COLORS[case.color], *sounds.get(case.container, ("-c:a", "aac")), "-ac", 1, plain),
    )
    if not case.rotation:
        return plain
    turned = folder / f"turned.{case.container}"
    ffmpeg.run("-i", plain, "-map", "0", "-c", "copy", "-metadata:s:v:0", f"rotate={case.rotation}", turned)
    return turned


def problems(case: Case, path: Path) -> Iterator[str]:
    """What our readers give otherwise than ffmpeg. Nothing if all is right.

    Raises:
        LatentSyncError: the file is refused.
    """
    video = VideoFile(path)
    stream = ffmpeg.probe(path, "-select_streams", "v:0", "-show_streams")["streams"][0]
    swaps = case.rotation in (90, 270)
    width, height = (HEIGHT, WIDTH) if swaps else (WIDTH, HEIGHT)
    if (video.width, video.height) != (width, height):
        yield f"size {video.width} x {video.height}, not {width} x {height}"
        return
    ratio = Fraction(stream.get("sample_aspect_ratio", "1:1").replace(":", "/").replace("N/A", "1"))
    if video.pixel_aspect != ((1 / ratio) if swaps and ratio else ratio or 1):
        yield f"pixel aspect {video.pixel_aspect}, not {ratio}"
    count = video.frame_count
    is_deep = next(video.read([0])).dtype == np.uint16
    stored = ffmpeg.frames(path, HEIGHT, WIDTH, "rgb48le" if is_deep else "rgb24")
    rotation = sum(int(data.get("rotation", 0)) for data in stream.get("side_data_list", ()))  # counterclockwise
    if bool(rotation) != bool(case.rotation):
        yield f"ffmpeg made a rotation of {rotation} for {case.rotation}"
    expected = np.rot90(stored, rotation // 90, axes=(1, 2))
    if count != len(expected):
        yield f"{count} frames, not {len(expected)}"
        return
    rng = np.random.default_rng(0)
    orders = {"forwards": range(count), "backwards": range(count - 1, -1, -1), "at random": rng.permutation(count)}
    in_memory = VideoFile(BytesIO(path.read_bytes()))
    for (name, order), source in product(orders.items(), (video, in_memory)):
        scale = 257 if is_deep else 1
        for i, frame in zip(order, source.read(map(int, order)), strict=True):
            error = np.abs(frame.astype(float) - expected[i]).mean() / scale
            if error > MAX_MEAN_ERROR:
                yield f"frame {i} {name} is {error:.1f} levels off"
                break
    times = ffmpeg.times(path, "v:0")
    worst = max(abs(video.index_at(time - times[0]) - i) for i, time in enumerate(times))
    if worst:
        yield f"a frame is shown {worst} frames early or late"
    if case.container == "avi" and case.b_frames:
        return  # AVI does not say when the first of reordered frames appears: versions of FFmpeg differ by a frame
    yield from _sound_problems(path, times[0])


def _sound_problems(path: Path, picture_start: Fraction) -> Iterator[str]:
    waveform = read_audio(path)
    samples = waveform.samples.mean(dim=0).numpy()
    start = ffmpeg.times(path, "a:0")[0] - picture_start
    ffmpeg_samples = ffmpeg.sound(path, waveform.rate, 1)[0]
    shift = round(start * waveform.rate)
    expected = np.concatenate([np.zeros(max(shift, 0), np.float32), ffmpeg_samples[max(-shift, 0) :]])
    if abs(len(samples) - len(expected)) > waveform.rate // 20:
        yield f"{len(samples)} samples, not {len(expected)}"
        return
    length = min(len(samples), len(expected))
    difference = np.abs(samples[:length] - expected[:length])
    if np.sqrt((difference**2).mean()) > 0.02:
        yield f"the sound differs by {np.sqrt((difference**2).mean()):.3f} of full scale"


def check(case: Case, folder: Path) -> tuple[str, str]:
    """ "right", "refused" or "wrong", and why."""
    path = make(case, folder)
    try:
        found = list(problems(case, path))
    except LatentSyncError as error:
        return "refused", str(error)
    return ("wrong", "; ".join(found)) if found else ("right", "")
