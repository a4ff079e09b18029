"""Reading audio: exact samples, channels and rate, or an error that names the file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from latentsync.audio.reader import read_audio
from latentsync.errors import AudioError
from tests.support.numbered_clip import make_clip, tone
from tests.support.wav import make_wav


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (2, 48000), (6, 48000)])
def test_reader_wav_is_exact(tmp_path: Path, channels: int, rate: int) -> None:
    samples = tone(channels, rate).astype(np.int16)
    make_wav(tmp_path / "a.wav", samples, rate)
    waveform = read_audio(tmp_path / "a.wav")
    assert waveform.rate == rate
    np.testing.assert_array_equal(waveform.samples.numpy(), samples / np.float32(32768))
    assert torch.equal(read_audio(BytesIO((tmp_path / "a.wav").read_bytes())).samples, waveform.samples)


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
def test_reader_decodes_compressed_audio(tmp_path: Path, name: str, codec: str, sample_format: str) -> None:
    write_audio(tmp_path / name, codec, sample_format, tone(2, 48000).astype(np.int16))
    waveform = read_audio(tmp_path / name)
    assert waveform.rate == 48000
    assert waveform.samples.shape[0] == 2
    assert abs(waveform.samples.shape[1] - 48000) <= 1152, "within one frame of the longest, mp3's"
    middle = waveform.samples[:, 20000:30000]
    assert torch.allclose(middle.abs().amax(dim=1), torch.tensor(0.5), atol=0.03), "lossy, but equally loud"


def write_audio(path: Path, codec: str, sample_format: str, samples: np.ndarray) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T).reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate, frame.pts = 48000, 0
        for piece in av.AudioResampler(sample_format, "stereo", 48000, stream.frame_size or 1024).resample(frame):
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))


def test_reader_names_file_without_audio(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", range(5))
    (tmp_path / "text.wav").write_text("no audio")
    make_wav(tmp_path / "empty.wav", np.zeros((1, 0)), 16000)
    for name, reason in {
        "clip.mp4": "has no audio",
        "text.wav": "cannot be opened as audio",
        "missing.wav": "does not exist",
        "empty.wav": "empty",
    }.items():
        with pytest.raises(AudioError, match=f"{name} .*{reason}"):
            read_audio(tmp_path / name)
