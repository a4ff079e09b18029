"""The output formats as data: container, codecs and pixel formats. To add a format, add one row to `FORMATS`."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError

CHANNEL_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
"""Number of audio channels -> FFmpeg's name of their layout."""

ALPHA_FORMATS = "Choose mov prores 4444, webm vp9 or mkv ffv1 lossless to keep the alpha channel."
FALLBACK_SAMPLE_RATE = 48_000  # Hz, where the codec does not support the waveform's rate


@dataclass(frozen=True, slots=True)
class AudioCodec:
    """An audio codec and its settings.

    encoder: FFmpeg's name of the encoder.
    sample_rates: supported sample rates in Hz. Empty means any rate.
    channels: supported numbers of channels.
    sample_format: FFmpeg's name of the sample format. Empty means the first format of the encoder.
    bits_per_second: bit rate of each channel, at most `bits_per_sample` times the sample rate. 0 for lossless codecs.
    """

    encoder: str
    sample_rates: tuple[int, ...] = ()
    channels: tuple[int, ...] = tuple(CHANNEL_LAYOUTS)
    sample_format: str = ""
    bits_per_second: int = 0
    bits_per_sample: int = 6

    def sample_rate_for(self, rate: int) -> int:
        """The sample rate for encoding: `rate` if the codec supports `rate`, otherwise 48,000 Hz."""
        return rate if not self.sample_rates or rate in self.sample_rates else FALLBACK_SAMPLE_RATE

    def bit_rate(self, channels: int, rate: int) -> int:
        """Bits per second of the whole stream."""
        return channels * min(self.bits_per_second, self.bits_per_sample * rate)


AAC = AudioCodec(
    "aac",
    sample_rates=(7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    bits_per_second=96_000,
)
OPUS = AudioCodec(
    "libopus", sample_rates=(8000, 12000, 16000, 24000, 48000), channels=(1, 2, 6), bits_per_second=96_000
)
PCM = AudioCodec("pcm_s24le")
FLAC = AudioCodec("flac", sample_format="s32")  # FLAC keeps 24 of the 32 bits


@dataclass(frozen=True, slots=True)
class Format:
    """One output format. Pixel formats have FFmpeg's names.

    name: the name that users choose.
    suffix: suffix of the file name.
    muxer, encoder: FFmpeg's names of the muxer and the encoder.
    pix_fmt: pixel format of frames with an even width and height.
    odd_pix_fmt: pixel format of other frames, without chroma subsampling. Empty if the format does not support odd
        sizes.
    audio: the audio codec.
    alpha_pix_fmt: pixel format of frames with alpha. Empty if the format does not support alpha.
    high_depth_pix_fmt, high_depth_alpha_pix_fmt: pixel formats of frames with more than 8 bits. Empty if the format has
        only one bit depth.
    has_crf: whether crf sets the quality.
    options: options of the encoder.
    tag: codec tag in the container, if players need a certain tag.
    """

    name: str
    suffix: str
    muxer: str
    encoder: str
    pix_fmt: str
    odd_pix_fmt: str
    audio: AudioCodec
    alpha_pix_fmt: str = ""
    high_depth_pix_fmt: str = ""
    high_depth_alpha_pix_fmt: str = ""
    has_crf: bool = False
    options: tuple[tuple[str, str], ...] = ()
    tag: str = ""

    def __str__(self) -> str:
        return self.name

    def pix_fmt_for(self, height: int, width: int, *, alpha: bool, high_depth: bool) -> str:
        """The pixel format of frames of this size. `high_depth` means more than 8 bits.

        Raises:
            UsageError: the format does not support these frames.
        """
        if alpha and not self.alpha_pix_fmt:
            raise UsageError(f"{self.name} does not support an alpha channel. {ALPHA_FORMATS}")
        if alpha:
            return (self.high_depth_alpha_pix_fmt if high_depth else "") or self.alpha_pix_fmt
        if high_depth and self.high_depth_pix_fmt:
            return self.high_depth_pix_fmt
        if height % 2 == 0 and width % 2 == 0:
            return self.pix_fmt
        if not self.odd_pix_fmt:
            raise UsageError(f"{self.name} does not support the odd size {width} x {height}. Choose mp4 h264 10-bit.")
        return self.odd_pix_fmt


X265_OPTIONS = (("x265-params", "log-level=error"),)
VP9_OPTIONS = (("deadline", "good"), ("cpu-used", "3"), ("row-mt", "1"))
FFV1_OPTIONS = (("level", "3"), ("slicecrc", "1"))

H264 = Format("mp4 h264", ".mp4", "mp4", "libx264", "yuv420p", "yuv444p", AAC, has_crf=True)

FORMATS = (
    H264,
    Format("mp4 h264 10-bit", ".mp4", "mp4", "libx264", "yuv420p10le", "yuv444p10le", AAC, has_crf=True),
    Format(
        "mp4 h265",
        ".mp4",
        "mp4",
        "libx265",
        "yuv420p",
        "yuv444p",
        AAC,
        has_crf=True,
        options=X265_OPTIONS,
        tag="hvc1",
    ),
    Format(
        "mp4 h265 10-bit",
        ".mp4",
        "mp4",
        "libx265",
        "yuv420p10le",
        "",  # x265 corrupts single pixels of odd sizes at 10 bits
        AAC,
        has_crf=True,
        options=X265_OPTIONS,
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
        alpha_pix_fmt="yuva420p",
        has_crf=True,
        options=VP9_OPTIONS,
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
        alpha_pix_fmt="yuva444p10le",
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
        alpha_pix_fmt="bgra",
        high_depth_pix_fmt="rgb48le",
        high_depth_alpha_pix_fmt="rgba64le",
        options=FFV1_OPTIONS,
    ),
)


def available_formats() -> tuple[Format, ...]:
    """The formats whose encoders this build of PyAV has."""
    return tuple(format for format in FORMATS if _has_encoder(format.encoder) and _has_encoder(format.audio.encoder))


def format_named(name: str) -> Format:
    """The format with this name.

    Raises:
        UsageError: the format does not exist, or this build of PyAV cannot write it.
    """
    formats = {format.name: format for format in available_formats()}
    if name not in formats:
        raise UsageError(f'Format "{name}" is not available. Choose one of {", ".join(formats)}.')
    return formats[name]


def format_for_suffix(suffix: str) -> Format:
    """The first format whose file names end in `suffix`.

    Raises:
        UsageError: no format has this suffix, or this build of PyAV cannot write it.
    """
    formats = available_formats()
    for format in formats:
        if format.suffix == suffix.lower():
            return format
    problem = f'ends in "{suffix}", which is not a video format' if suffix else "has no extension"
    suffixes = ", ".join(dict.fromkeys(format.suffix for format in formats))
    raise UsageError(f"The name of the output file {problem}. Use a name that ends in {suffixes}.")


def _has_encoder(name: str) -> bool:
    from av.codec import Codec
    from av.error import FFmpegError

    try:
        Codec(name, "w")
    except (FFmpegError, ValueError):
        return False
    return True
