"""Convert ComfyUI's IMAGE, VIDEO and AUDIO to the library's types and back. Only this module converts value ranges."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from math import isfinite
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import numpy as np
import torch
from comfy_api.input import VideoInput
from comfy_api.input_impl import VideoFromFile

from ..latentsync.audio.mono import MonoSound
from ..latentsync.audio.reader import read_mono
from ..latentsync.audio.waveform import Waveform
from ..latentsync.errors import AudioError, UsageError
from ..latentsync.video.color import to_float32
from ..latentsync.video.frame_source import FrameSource, ImageBatch
from ..latentsync.video.video_file import VideoFile
from .io_types import expect_type

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("latentsync")
MAKES_AUDIO = "Load Audio, or another AUDIO output"
MAX_SECONDS_DENOMINATOR = 1_000_000  # microseconds
MAX_RATE_DENOMINATOR = 1001  # NTSC rates such as 30000/1001 have no exact float


def frame_source(source: VideoInput | torch.Tensor, fps: float) -> FrameSource:
    """The frames of a VIDEO, streamed from its file, or of an IMAGE batch with `fps` frames per second."""
    if isinstance(source, torch.Tensor):
        return ImageBatch(source, exact_rate(fps))
    expect_type("source", source, VideoInput, "Load Video, or another VIDEO or IMAGE output")
    reason = why_not_streamed(source)
    if reason is not None:
        log.info("The whole video is held in RAM: %s", reason)
        components = source.get_components()
        return ImageBatch(components.images, Fraction(components.frame_rate))
    start, duration = map(_exact_seconds, trim_window(source))
    return VideoFile(source.get_stream_source(), start_seconds=start, duration_seconds=duration or None)


def video_sound(video: VideoInput) -> Waveform | MonoSound:
    """The sound of a VIDEO, from the first frame that the VIDEO shows.

    A long sound of a file is in a temporary file, see `read_mono`.
    """
    if why_not_streamed(video) is not None:
        return waveform("video", video.get_components().audio)
    start, duration = map(_exact_seconds, trim_window(video))
    return read_mono(video.get_stream_source(), start_seconds=start, duration_seconds=duration or None)


def speech_of_source(source: VideoInput | torch.Tensor, audio: Mapping[str, Any] | None) -> Waveform | None:
    """The AUDIO of "speech_of_source", or else the sound of a VIDEO without a file. None for other sources."""
    if audio is None and isinstance(source, VideoInput) and why_not_streamed(source) is not None:
        audio = source.get_components().audio
    return None if audio is None else waveform("speech_of_source", audio)


def why_not_streamed(video: VideoInput) -> str | None:
    """The reason why the library cannot read a VIDEO from its file. None: the library can read the file."""
    if type(video).get_stream_source is VideoInput.get_stream_source:
        return "it was made from images and has no file"
    if _has_pending_edits(video):
        return "its frames were edited since it was read"
    if _hides_its_trim(video):
        return "this ComfyUI does not report which part of the file it shows"
    return None


def trim_window(video: VideoInput) -> tuple[float, float]:
    """Start and duration in seconds. A duration of 0 means up to the end."""
    window = getattr(video, "get_active_trim_window", None)  # ComfyUI 0.23 and newer
    return (0.0, 0.0) if window is None else window()


def exact_rate(fps: float) -> Fraction:
    """The exact frame rate of a float: 29.97002997 is 30000/1001."""
    if not isfinite(fps):
        raise UsageError(f'"image_fps" cannot be {fps}. Choose a number above 0.')
    return Fraction(fps).limit_denominator(MAX_RATE_DENOMINATOR)


def waveform(name: str, audio: Mapping[str, Any] | None) -> Waveform:
    """Convert the AUDIO of an input to a Waveform. The function reads a lazy mapping, such as VideoHelperSuite's."""
    if audio is None:
        raise AudioError(f'"{name}" has no audio. Connect the AUDIO of Load Audio, or of a video with a sound track.')
    samples, rate = _read(name, expect_type(name, audio, Mapping, MAKES_AUDIO))
    expect_type(name, samples, torch.Tensor, MAKES_AUDIO)
    if samples.ndim != 3 or samples.shape[0] != 1:
        raise AudioError(f'"{name}" must be one recording, but is a batch. Connect the AUDIO of one recording.')
    return Waveform(samples[0].detach().to("cpu", torch.float32), rate)


def audio(sound: Waveform) -> dict[str, Any]:
    """Convert a Waveform to ComfyUI's AUDIO."""
    return {"waveform": sound.samples[None], "sample_rate": sound.rate}


def image(frame: np.ndarray) -> torch.Tensor:
    """Convert a frame (H, W, C) to a float32 tensor (H, W, C) in 0..1."""
    return torch.from_numpy(np.require(to_float32(frame), requirements="W"))  # copies a read-only frame


def picture(drawn: Image) -> torch.Tensor:
    """Convert a drawing to an IMAGE batch with one image."""
    return image(np.array(drawn))[None]


def _has_pending_edits(video: VideoInput) -> bool:
    has_edits = getattr(video, "has_pending_frame_edits", None)  # ComfyUI 0.38 and newer
    return has_edits is not None and has_edits()


def _hides_its_trim(video: VideoInput) -> bool:
    """Whether a VIDEO has a trim, but does not report its start. ComfyUI before 0.23 reports only the duration."""
    if hasattr(video, "get_active_trim_window"):
        return False
    return video.get_duration() != VideoFromFile(video.get_stream_source()).get_duration()


def _exact_seconds(seconds: float) -> Fraction:
    """The exact fraction of a float: 0.12 is 3/25."""
    return Fraction(seconds).limit_denominator(MAX_SECONDS_DENOMINATOR)


def _read(name: str, audio: Mapping[str, Any]) -> tuple[torch.Tensor, int]:
    try:
        return audio["waveform"], int(audio["sample_rate"])
    except mm.InterruptProcessingException:
        raise
    except Exception as error:
        raise AudioError(
            f'"{name}" cannot be read ({error}). The video has no sound track, or the file is damaged. Connect the '
            "AUDIO of Load Audio, or of a video with sound."
        ) from error
