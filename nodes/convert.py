"""ComfyUI's IMAGE, VIDEO and AUDIO to and from the library's types. Ranges and layouts are converted here, once."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import comfy.model_management as mm
import numpy as np
import torch
from comfy_api.input_impl import VideoFromComponents

from ..latentsync.errors import AudioError, MediaError
from ..latentsync.media import FrameSource, ImageBatch, VideoFile
from ..latentsync.types import Waveform

if TYPE_CHECKING:
    from comfy_api.input import VideoInput
    from PIL.Image import Image

MAX_RATE_DENOMINATOR = 1001  # 30000/1001 and its like are exact; a float of them is not


def frame_source(source: VideoInput | torch.Tensor, fps: float) -> FrameSource:
    """A VIDEO (streamed from its file) or an IMAGE batch of `fps` frames per second."""
    if isinstance(source, torch.Tensor):
        return ImageBatch(source, exact_rate(fps))
    if isinstance(source, VideoFromComponents):
        components = source.get_components()
        return ImageBatch(components.images, Fraction(components.frame_rate))
    start, duration = _trim_window(source)
    return VideoFile(
        source.get_stream_source(),
        start_seconds=Fraction(start),
        duration_seconds=Fraction(duration) if duration else None,
    )


def exact_rate(fps: float) -> Fraction:
    """The frame rate that a float stands for: 29.97002997 is 30000/1001."""
    return Fraction(fps).limit_denominator(MAX_RATE_DENOMINATOR)


def waveform(audio: Mapping[str, Any] | None) -> Waveform:
    """An AUDIO of one recording; a lazy mapping (as VideoHelperSuite's) is read here, where it may fail."""
    if audio is None:
        raise AudioError(
            "there is no sound: connect the AUDIO of Load Audio, or of a video that has a sound track, to 'audio'"
        )
    samples, rate = _read(audio)
    if samples.ndim != 3 or samples.shape[0] != 1:
        raise AudioError(f"an AUDIO of one recording is needed, (1, channels, samples), not {tuple(samples.shape)}")
    return Waveform(samples[0].detach().to("cpu", torch.float32), rate)


def audio(sound: Waveform) -> dict[str, Any]:
    """A Waveform as ComfyUI's AUDIO."""
    return {"waveform": sound.samples[None], "sample_rate": sound.rate}


def image(frame: np.ndarray) -> torch.Tensor:
    """A frame (H, W, C), uint8 or float32, as float32 (H, W, C) in 0..1."""
    tensor = torch.from_numpy(frame)
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor


def picture(drawn: Image) -> torch.Tensor:
    """A drawing as an IMAGE batch of one."""
    return image(np.array(drawn))[None]


def _trim_window(video: VideoInput) -> tuple[float, float]:
    window = getattr(video, "get_active_trim_window", None)
    if window is not None:
        return window()
    if type(video).__name__ == "VideoFromFile":
        return 0.0, 0.0
    raise MediaError(f"{type(video).__name__} is a kind of VIDEO that this ComfyUI cannot stream: save it to a file")


def _read(audio: Mapping[str, Any]) -> tuple[torch.Tensor, int]:
    try:
        return audio["waveform"], int(audio["sample_rate"])
    except mm.InterruptProcessingException:
        raise
    except Exception as error:
        raise AudioError(
            f"the sound wired here cannot be read ({error}): its video has no sound track, or the file is damaged. "
            "Connect the AUDIO of Load Audio, or of a video that has sound."
        ) from error
