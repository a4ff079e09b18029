"""The kinds of files that can be written: container, codecs and pixels, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
"""FFmpeg's name of each number of channels."""


OTHER_RATE = 48_000  # samples per second that sound is converted to where its own is unknown to the encoder


@dataclass(frozen=True, slots=True)
class SoundCodec:
    """How sound is encoded.

    encoder: FFmpeg's name.
    rates: samples per second that it knows; empty: any.
    channels: numbers of channels that it knows.
    sample_format: FFmpeg's name, where the encoder's first is not the best.
    bits_per_second: per channel, at most `bits_per_sample` times the rate; 0 for encoders that lose nothing.
    """

    encoder: str
    rates: tuple[int, ...] = ()
    channels: tuple[int, ...] = tuple(LAYOUTS)
    sample_format: str = ""
    bits_per_second: int = 0
    bits_per_sample: int = 6

    def rate_for(self, rate: int) -> int:
        """The rate that sound of `rate` samples per second is written at: its own wherever that is possible."""
        return rate if not self.rates or rate in self.rates else OTHER_RATE

    def bit_rate(self, channels: int, rate: int) -> int:
        """Bits per second of the whole stream."""
        return channels * min(self.bits_per_second, self.bits_per_sample * rate)


AAC = SoundCodec(
    "aac",
    rates=(7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    bits_per_second=96_000,
)


OPUS = SoundCodec("libopus", rates=(8000, 12000, 16000, 24000, 48000), channels=(1, 2, 6), bits_per_second=96_000)


PCM = SoundCodec("pcm_s24le")


FLAC = SoundCodec("flac", sample_format="s32")  # of which it keeps 24 bits


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of video file. Pixel formats are FFmpeg's names.

    name: what users choose.
    suffix: of the file's name.
    muxer, encoder: FFmpeg's names.
    pixels: of even sizes.
    odd_pixels: of sizes that are odd either way, which need unsubsampled color; empty where they cannot be kept.
    alpha_pixels: of frames with alpha; empty where alpha cannot be kept.
    deep_pixels, deep_alpha_pixels: of frames with more than 8 bits, where the format follows the source.
    sound: how sound is encoded.
    has_crf: whether quality is set by crf.
    options: of the encoder.
    tag: the codec's name in the container, where players need a certain one.
    """

    name: str
    suffix: str
    muxer: str
    encoder: str
    pixels: str
    odd_pixels: str
    sound: SoundCodec
    alpha_pixels: str = ""
    deep_pixels: str = ""
    deep_alpha_pixels: str = ""
    has_crf: bool = False
    options: tuple[tuple[str, str], ...] = ()
    tag: str = ""

    def __str__(self) -> str:
        return self.name

    def pixels_of(self, height: int, width: int, *, alpha: bool, deep: bool) -> str:
        """The pixel format of frames: their size, whether they have alpha, and whether more than 8 bits.

        Raises:
            UsageError: the format cannot hold them.
        """
        if alpha and not self.alpha_pixels:
            raise UsageError(f"{self.name} cannot hold alpha: choose mov prores 4444, webm vp9 or mkv ffv1 lossless")
        if alpha:
            return (self.deep_alpha_pixels if deep else "") or self.alpha_pixels
        if deep and self.deep_pixels:
            return self.deep_pixels
        if height % 2 == 0 and width % 2 == 0:
            return self.pixels
        if not self.odd_pixels:
            raise UsageError(f"{self.name} cannot hold the odd size {width} x {height}: choose mp4 h264 10-bit")
        return self.odd_pixels


REPEATABLE = (("x264-params", "cpu-independent=1"),)
"""x264's macroblock tree in C, the same on every processor: its code for AVX-512 gives the same 8-bit pictures other
bytes with what the memory held before. On footage of 1080 x 1920 it costs a thousandth of the size, and no time that
could be measured."""


DEEP_REPEATABLE = (*REPEATABLE, ("thread_type", "frame"))
"""A frame to each thread: with PyAV's own choice, a slice of a frame to each, x264's macroblock tree gives one in eight
short clips of 10 bits other bytes, now and then half as many again."""


QUIET = (("x265-params", "log-level=error"),)


VP9 = (("deadline", "good"), ("cpu-used", "3"), ("row-mt", "1"))


H264 = Format("mp4 h264", ".mp4", "mp4", "libx264", "yuv420p", "yuv444p", AAC, has_crf=True, options=REPEATABLE)


FORMATS = (
    H264,
    Format(
        "mp4 h264 10-bit",
        ".mp4",
        "mp4",
        "libx264",
        "yuv420p10le",
        "yuv444p10le",
        AAC,
        has_crf=True,
        options=DEEP_REPEATABLE,
    ),
    Format("mp4 h265", ".mp4", "mp4", "libx265", "yuv420p", "yuv444p", AAC, has_crf=True, options=QUIET, tag="hvc1"),
    Format(
        "mp4 h265 10-bit",
        ".mp4",
        "mp4",
        "libx265",
        "yuv420p10le",
        "",  # x265 damages single pixels of odd sizes at 10 bits
        AAC,
        has_crf=True,
        options=QUIET,
        tag="hvc1",
    ),
    Format(
        "webm vp9",
        ".webm",
        "webm",
        "libvpx-vp9",
        "yuv420p",
        "yuv444p",
        OPUS,
        alpha_pixels="yuva420p",
        has_crf=True,
        options=VP9,
    ),
    Format("mov prores 422", ".mov", "mov", "prores_ks", "yuv422p10le", "yuv444p10le", PCM),
    Format(
        "mov prores 4444",
        ".mov",
        "mov",
        "prores_ks",
        "yuv444p10le",
        "yuv444p10le",
        PCM,
        alpha_pixels="yuva444p10le",
        options=(("profile", "4444"),),
    ),
    Format(
        "mkv ffv1 lossless",
        ".mkv",
        "matroska",
        "ffv1",
        "bgr0",
        "bgr0",
        FLAC,
        alpha_pixels="bgra",
        deep_pixels="rgb48le",
        deep_alpha_pixels="rgba64le",
        options=(("level", "3"), ("slicecrc", "1")),
    ),
)


def available_formats() -> tuple[Format, ...]:
    """The formats whose encoders this build of PyAV has."""
    return tuple(form for form in FORMATS if _has(form.encoder) and _has(form.sound.encoder))


def format_named(name: str) -> Format:
    """The format of a name.

    Raises:
        UsageError: there is none, or this build of PyAV cannot write it.
    """
    offered = {form.name: form for form in available_formats()}
    if name not in offered:
        raise UsageError(f"there is no format {name!r} here: choose one of {', '.join(offered)}")
    return offered[name]


def format_for_suffix(suffix: str) -> Format:
    """The first format whose files end so.

    Raises:
        UsageError: there is none, or this build of PyAV cannot write it.
    """
    offered = available_formats()
    for form in offered:
        if form.suffix == suffix.lower():
            return form
    endings = ", ".join(dict.fromkeys(form.suffix for form in offered))
    given = f"that ends in {suffix!r}" if suffix else "without a suffix"
    raise UsageError(f"no video can be written under a name {given}: use one of {endings}")


def _has(encoder: str) -> bool:
    from av.codec import Codec
    from av.error import FFmpegError

    try:
        Codec(encoder, "w")
    except (FFmpegError, ValueError):
        return False
    return True
