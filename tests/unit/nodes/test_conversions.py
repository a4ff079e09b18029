"""Conversion of ComfyUI's VIDEO, IMAGE and AUDIO to the types of the library."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from latentsync.output.video_writer import VideoWriter

NTSC = Fraction(30000, 1001)


@pytest.fixture(scope="session")
def convert(pack: ModuleType) -> ModuleType:
    return pack.conversions


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "clip.mp4", rate=Fraction(25), height=32, width=32, crf=1) as writer:
        for level in range(20):
            writer.write(np.full((32, 32, 3), 10 * level, np.uint8))
    return tmp_path / "clip.mp4"


def levels(source: Any) -> list[int]:
    """The frames of the clip that a source shows."""
    frames = source.read(range(source.frame_count))
    return [round(float(frame.mean()) * (255 if frame.dtype.kind == "f" else 1) / 10) for frame in frames]


def test_conversions_file_is_streamed(convert: ModuleType, video: Path) -> None:
    from comfy_api.input_impl import VideoFromFile

    for given in (VideoFromFile(str(video)), VideoFromFile(BytesIO(video.read_bytes()))):
        source = convert.frame_source(given, 12)
        assert type(source).__name__ == "VideoFile"
        assert (source.rate, levels(source)) == (25, list(range(20)))


def test_conversions_trimmed_file_is_streamed(convert: ModuleType, video: Path) -> None:
    from comfy_api.input_impl import VideoFromFile

    source = convert.frame_source(VideoFromFile(str(video)).as_trimmed(0.2, 0.4), 12)
    assert type(source).__name__ == "VideoFile"
    assert levels(source) == list(range(5, 15))


def test_conversions_unknown_trim_is_read_by_comfyui(
    convert: ModuleType, video: Path, old_video: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    from comfy_api.input_impl import VideoFromFile

    with caplog.at_level(logging.INFO, "latentsync"):
        source = convert.frame_source(old_video(VideoFromFile(str(video))).as_trimmed(0.2, 0.4), 12)
    assert type(source).__name__ == "ImageBatch"
    assert levels(source) == list(range(5, 15))
    assert "does not report which part" in caplog.text


def test_conversions_video_of_images_keeps_exact_fps(convert: ModuleType) -> None:
    from comfy_api.input_impl import VideoFromComponents
    from comfy_api.latest import Types

    images = torch.linspace(0, 1, 4)[:, None, None, None].expand(4, 8, 8, 3)
    given = VideoFromComponents(Types.VideoComponents(images=images, audio=None, frame_rate=NTSC))
    source = convert.frame_source(given, 12)
    assert (source.rate, source.frame_count) == (NTSC, 4)


def test_conversions_images_take_fps_of_the_node(convert: ModuleType) -> None:
    assert convert.frame_source(torch.zeros(3, 8, 8, 3), 29.97002997).rate == NTSC
    assert convert.frame_source(torch.zeros(3, 8, 8, 3), 12.5).rate == Fraction(25, 2)


class Lazy(Mapping[str, Any]):
    """Audio that is read when it is first used, as video loaders return it."""

    def __init__(self, read: Any) -> None:
        self._read = read

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2


def test_conversions_accept_lazy_audio(convert: ModuleType) -> None:
    sound = convert.waveform("audio", Lazy(lambda: {"waveform": torch.ones(1, 2, 100), "sample_rate": 44100}))
    assert (sound.rate, tuple(sound.samples.shape)) == (44100, (2, 100))


def test_conversions_take_speech_of_source(convert: ModuleType, video: Path) -> None:
    """A connected AUDIO comes first, then the AUDIO of a VIDEO without a file. The library reads files itself."""
    from comfy_api.input_impl import VideoFromComponents, VideoFromFile
    from comfy_api.util import VideoComponents

    images = torch.zeros(5, 16, 16, 3)
    own, other = ({"waveform": torch.full((1, 1, 800), value), "sample_rate": 8000} for value in (0.1, 0.2))
    made, silent = (VideoFromComponents(VideoComponents(images, Fraction(25), sound)) for sound in (own, None))
    assert convert.speech_of_source(made, None).samples.mean() == pytest.approx(0.1)
    for source in (made, silent, images, VideoFromFile(str(video))):
        assert convert.speech_of_source(source, other).samples.mean() == pytest.approx(0.2)
    for source in (silent, images, VideoFromFile(str(video))):
        assert convert.speech_of_source(source, None) is None


def test_conversions_missing_audio_says_what_to_connect(convert: ModuleType) -> None:
    from the_pack.latentsync.errors import AudioError, UsageError

    def fail() -> dict[str, Any]:
        raise RuntimeError("ffmpeg failed")

    for given in (None, Lazy(fail), {}):
        with pytest.raises(AudioError, match=r"vocals.*onnect the AUDIO|onnect the AUDIO.*'vocals'"):
            convert.waveform("vocals", given)
    for unwired in ("a word", {"waveform": "a word", "sample_rate": 16000}):
        with pytest.raises(UsageError, match='"vocals" has a value of the wrong type'):
            convert.waveform("vocals", unwired)
    with pytest.raises(AudioError, match="one recording"):
        convert.waveform("audio", {"waveform": torch.zeros(2, 1, 100), "sample_rate": 16000})


def test_conversions_cancel_while_reading_audio(convert: ModuleType) -> None:
    from comfy.model_management import InterruptProcessingException

    def cancelled() -> dict[str, Any]:
        raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        convert.waveform("audio", Lazy(cancelled))


def test_conversions_half_precision_with_alpha(convert: ModuleType) -> None:
    images = torch.rand(2, 8, 8, 4, dtype=torch.float16)
    source = convert.frame_source(images, 25)
    np.testing.assert_array_equal(next(source.read([1])), images[1, ..., :3].float().numpy())
    np.testing.assert_array_equal(next(source.read_alpha([1])), images[1, ..., 3].float().numpy())
