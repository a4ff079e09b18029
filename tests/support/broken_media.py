"""Attacks with broken videos and recordings."""

from __future__ import annotations

import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np

from latentsync.output.video_writer import VideoWriter
from tests.support.scene import Attack, Scene
from tests.support.wav import make_wav


def cut(scene: Scene, share: float) -> Path:
    """The start of a valid video."""
    whole = scene.good.video.read_bytes()
    return scene.written("clip.mp4", whole[: int(share * len(whole))])


def without_pictures(scene: Scene) -> Path:
    """A valid video whose coded frames are all zeros. Its index is complete."""
    data = bytearray(scene.good.video.read_bytes())
    at = data.index(b"mdat")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    data[at + 4 : at - 4 + size] = bytes(size - 8)
    return scene.written("clip.mp4", bytes(data))


def with_box(scene: Scene, name: bytes, offset: int, value: int) -> Path:
    """A valid video with one 32-bit number replaced, at this offset after the name of an MP4 box."""
    data = bytearray(scene.good.video.read_bytes())
    at = data.index(name) + 4 + offset
    data[at : at + 4] = struct.pack(">I", value)
    return scene.written("clip.mp4", bytes(data))


def y4m(scene: Scene, header: str) -> Path:
    """An uncompressed video with this header and one small frame."""
    return scene.written("clip.y4m", f"YUV4MPEG2 {header}\nFRAME\n".encode() + bytes(16 * 16 * 3 // 2))


def png(scene: Scene, width: int, height: int) -> Path:
    """A PNG whose header claims this size, with a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(4096))) + chunk(b"IEND", b"")
    return scene.written("clip.png", b"\x89PNG\r\n\x1a\n" + content)


def playlist(scene: Scene) -> Path:
    """An HLS playlist that names another file."""
    return scene.written(
        "clip.m3u8", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{transport(scene)}\n#EXT-X-ENDLIST\n"
    )


def concatenation(scene: Scene) -> Path:
    transport(scene)
    return scene.written("clip.ffconcat", "ffconcat version 1.0\nfile 'private.ts'\n")


def transport(scene: Scene) -> Path:
    """A private recording in a format that playlists can name."""
    import av

    path = scene.folder / "private.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, np.uint8), "rgb24")
        for _ in range(10):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def loop(scene: Scene, name: str) -> Path:
    """A symbolic link to itself."""
    path = scene.folder / name
    path.symlink_to(name)
    return path


def pipe(scene: Scene, name: str) -> Path:
    """A named pipe without a writer."""
    os.mkfifo(scene.folder / name)  # not on Windows, which has no /dev/zero either
    return scene.folder / name


def folder(scene: Scene, name: str) -> Path:
    (scene.folder / name).mkdir()
    return scene.folder / name


def noise(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)


def wav(scene: Scene, *, rate: int = 16_000, channels: int = 1, samples: bytes = bytes(32_000), bits: int = 16) -> Path:
    """A recording with this header: integers, or floats if there are 32 bits."""
    kind, width = (3, 4) if bits == 32 else (1, bits // 8)
    block = channels * width
    form = struct.pack("<HHIIHH", kind, channels, rate, (rate * block) % 2**32, block % 2**16, bits)
    data = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return scene.written("sound.wav", b"RIFF" + struct.pack("<I", len(data)) + data)


def spoken(count: int) -> np.ndarray:
    return np.sin(np.arange(count) / 20).astype(np.float32)


def with_nan(scene: Scene) -> Path:
    samples = spoken(16_000)
    samples[8000] = np.nan
    return wav(scene, samples=samples.tobytes(), bits=32)


def gray(scene: Scene) -> Path:
    """A video without sound."""
    path = scene.folder / "gray.mp4"
    with VideoWriter(path, rate=Fraction(25), height=64, width=64) as writer:
        writer.write(np.full((64, 64, 3), 127, np.uint8))
    return path


def with_header(scene: Scene, place: int, value: int) -> Path:
    """A recording with one 16-bit number of its header replaced."""
    path = wav(scene, samples=noise(32_000))
    header = bytearray(path.read_bytes())
    struct.pack_into("<H", header, place, value)
    path.write_bytes(header)
    return path


def m4a_cut(scene: Scene) -> Path:
    """A recording in MP4 that ends before its index."""
    import av

    path = scene.folder / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(spoken(16_000)[None], "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    path.write_bytes(path.read_bytes()[:-400])
    return path


def seven_channels(scene: Scene) -> Path:
    return make_wav(scene.folder / "seven.wav", np.random.default_rng(0).uniform(-32767, 32767, (7, 16_000)), 16_000)


NOT_READ = r"cannot be opened as a video \("
NOT_HEARD = r"cannot be opened as audio \("

VIDEOS = [
    Attack("video of no bytes", lambda s: s.run(video=s.written("clip.mp4", b"")), f"clip.mp4 {NOT_READ}"),
    Attack("words named .mp4", lambda s: s.run(video=s.written("clip.mp4", "words")), f"clip.mp4 {NOT_READ}"),
    Attack("random bytes named .mp4", lambda s: s.run(video=s.written("clip.mp4", noise(9999))), "clip.mp4 "),
    Attack(
        "first 64 bytes of a video",
        lambda s: s.run(video=s.written("clip.mp4", s.good.video.read_bytes()[:64])),
        "clip.mp4 ",
    ),
    Attack("video cut in half", lambda s: s.run(video=cut(s, 0.5)), "clip.mp4 "),
    Attack("video without its last hundredth", lambda s: s.run(video=cut(s, 0.99)), "clip.mp4 "),
    Attack(
        "recording named .mp4",
        lambda s: s.run(video=s.written("clip.mp4", s.good.audio.read_bytes())),
        "clip.mp4 has no video",
    ),
    Attack("folder named .mp4", lambda s: s.run(video=folder(s, "clip.mp4")), "clip.mp4 is a folder"),
    Attack("video that is not there", lambda s: s.run(video=s.folder / "clip.mp4"), "clip.mp4 does not exist"),
    Attack("link to itself named .mp4", lambda s: s.run(video=loop(s, "clip.mp4")), "clip.mp4 "),
    Attack(
        "pipe that nobody writes to, as video",
        lambda s: s.run(video=pipe(s, "clip.mp4")),
        "clip.mp4 .*a device or a pipe, not a file",
        needs="/dev/zero",
    ),
    Attack(
        "device of endless zeros as video",
        lambda s: s.run(video=Path("/dev/zero")),
        "zero .*a device or a pipe, not a file",
        needs="/dev/zero",
    ),
    Attack(
        "video whose pictures are all zeros",
        lambda s: s.run(video=without_pictures(s)),
        "clip.mp4 has .* frames, but none of them can be decoded",
    ),
    Attack(
        "mp4 in a format that nobody knows",
        lambda s: s.run(video=s.written("clip.mp4", s.good.video.read_bytes().replace(b"avc1", b"xyz1"))),
        "clip.mp4 has a video stream that cannot be decoded. .* Export the video as H.264",
    ),
    Attack(
        "mp4 that says to hold two thousand million frames",
        lambda s: s.run(video=with_box(s, b"stsz", 8, 2**31 - 1)),
        "clip.mp4 ",
    ),
    Attack("mp4 whose frames lie beyond its end", lambda s: s.run(video=with_box(s, b"stco", 8, 2**31)), "clip.mp4 "),
    Attack("mp4 whose clock has no ticks", lambda s: s.run(video=with_box(s, b"mdhd", 12, 0)), "clip.mp4 "),
    Attack("picture of 16 x 999,999,999 pixels", lambda s: s.run(video=y4m(s, "W16 H999999999 F25:1")), "clip.y4m "),
    Attack("picture of -16 x 16 pixels", lambda s: s.run(video=y4m(s, "W-16 H16 F25:1")), "clip.y4m "),
    Attack("picture of 0 x 0 pixels", lambda s: s.run(video=y4m(s, "W0 H0 F25:1")), "clip.y4m "),
    Attack(
        "PNG that says to be 40,000 x 40,000, and holds 4 KB",
        lambda s: s.run(video=png(s, 40_000, 40_000)),
        "clip.png ",
    ),
    Attack("PNG that says to be 4,294,967,295 x 1", lambda s: s.run(video=png(s, 2**32 - 1, 1)), "clip.png "),
    Attack("playlist of somebody's other file (HLS)", lambda s: s.run(video=playlist(s)), f"clip.m3u8 {NOT_READ}"),
    Attack(
        "list of somebody's other file (ffconcat)",
        lambda s: s.run(video=concatenation(s)),
        f"clip.ffconcat {NOT_READ}",
    ),
    Attack("address of a protocol as video", lambda s: s.run(video=Path("pipe:0")), "pipe:0 does not exist"),
]

SOUNDS = [
    Attack("recording of no bytes", lambda s: s.run(audio=s.written("sound.wav", b"")), f"sound.wav {NOT_HEARD}"),
    Attack("words named .wav", lambda s: s.run(audio=s.written("sound.wav", "words")), f"sound.wav {NOT_HEARD}"),
    Attack("random bytes named .flac", lambda s: s.run(audio=s.written("sound.flac", noise(9999))), "sound.flac "),
    Attack(
        "recording in a format that nobody knows",
        lambda s: s.run(audio=with_header(s, 20, 0x9999)),
        "sound.wav has audio that cannot be decoded. .* Export the recording as WAV",
    ),
    Attack(
        "recording of 64-bit samples",
        lambda s: s.run(audio=with_header(s, 34, 64)),
        "sound.wav has 64-bit integer samples, which LatentSync cannot read. Export the recording with 24 bits",
    ),
    Attack("m4a cut short", lambda s: s.run(audio=m4a_cut(s)), "sound.m4a "),
    Attack("video without sound, as recording", lambda s: s.run(audio=gray(s)), "gray.mp4 has no audio"),
    Attack("folder named .wav", lambda s: s.run(audio=folder(s, "sound.wav")), "sound.wav is a folder"),
    Attack(
        "pipe that nobody writes to, as recording",
        lambda s: s.run(audio=pipe(s, "sound.wav")),
        "sound.wav .*a device or a pipe, not a file",
        needs="/dev/zero",
    ),
    Attack("header of a recording without samples", lambda s: s.run(audio=wav(s, samples=b"")), "sound.wav "),
    Attack("recording of silence", lambda s: s.run(audio=wav(s)), "is completely silent"),
    Attack("recording of 5 ms", lambda s: s.run(audio=wav(s, samples=noise(160))), "shorter than 10 ms"),
    Attack(
        "recording with a sample that is no number",
        lambda s: s.run(audio=with_nan(s)),
        "1 NaN or infinite samples. The first is at 0.5",
    ),
    Attack(
        "recording of integers stored as floats",
        lambda s: s.run(audio=wav(s, samples=(spoken(16_000) * 32_768).tobytes(), bits=32)),
        "but full scale is 1",
    ),
    Attack(
        "recording of 1 sample per second",
        lambda s: s.run(audio=wav(s, rate=1, samples=noise(32_000))),
        "a sample rate of 1 Hz",
    ),
    Attack(
        "recording of 0 samples per second", lambda s: s.run(audio=wav(s, rate=0, samples=noise(32_000))), "sound.wav "
    ),
    Attack(
        "recording of 4,294,967,295 samples per second",
        lambda s: s.run(audio=wav(s, rate=2**32 - 1, samples=noise(32_000))),
        "sound",
    ),
    Attack("recording of 0 channels", lambda s: s.run(audio=wav(s, channels=0, samples=noise(32_000))), "sound.wav "),
    Attack(
        "recording of 65,535 channels", lambda s: s.run(audio=wav(s, channels=65_535, samples=noise(32_000))), "sound"
    ),
    Attack("recording of 7 channels for AAC", lambda s: s.run(audio=seven_channels(s)), "not 7"),
    Attack(
        "vocals that are not there",
        lambda s: s.run("--vocals", s.folder / "vocals.wav"),
        "vocals.wav does not exist",
    ),
]
