"""A recording that is read in parts has the samples of the recording in RAM, to the bit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from torch import Tensor

from latentsync.audio import mono, reader
from latentsync.audio.mono import MonoSound, StoredSamples, mono_sound
from latentsync.audio.reader import read_audio, read_mono
from latentsync.audio.waveform import SAMPLE_RATE, Waveform, resample_blocks
from latentsync.errors import AudioError, StorageError
from latentsync.output.video_writer import VideoWriter
from latentsync.scoring.score import score_track
from latentsync.stages import score_video
from tests.support.numbered_clip import tone
from tests.support.sync_networks import LevelNet, brightness, track_at
from tests.support.wav import make_wav

SECONDS = 3


def resampled_whole(waveform: Waveform) -> Tensor:
    """The mean of the channels, from the whole waveform at once."""
    count = int(waveform.duration_seconds * SAMPLE_RATE)
    return resample_blocks([waveform.samples.mean(dim=0)], waveform.rate, SAMPLE_RATE, count)


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sound spans several parts, and is in a file."""
    monkeypatch.setattr(mono, "MEMORY_BYTES", 10_000)
    for module in (mono, reader):
        monkeypatch.setattr(module, "BLOCK_SAMPLES", 7_001)


def wav(folder: Path, channels: int, rate: int) -> Path:
    samples = np.tile(tone(channels, rate), SECONDS)
    noise = np.random.default_rng(channels).integers(-9000, 9000, samples.shape)
    make_wav(folder / "a.wav", (samples + noise).astype(np.int16), rate)
    return folder / "a.wav"


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (2, 48000), (6, 48000), (1, 8000)])
@pytest.mark.parametrize(
    ("start", "duration"), [(Fraction(0), None), (Fraction(1, 3), None), (Fraction(1, 3), Fraction(2))]
)
def test_read_mono_equals_the_whole_recording(
    tmp_path: Path, channels: int, rate: int, start: Fraction, duration: Fraction | None
) -> None:
    path = wav(tmp_path, channels, rate)
    whole = read_audio(path)
    whole = Waveform(whole.samples[:, round(start * rate) :], rate)
    whole = whole if duration is None else whole.pad_or_trim(duration)
    sound = read_mono(path, start_seconds=start, duration_seconds=duration)
    assert sound.duration_seconds == whole.duration_seconds
    assert torch.equal(sound.samples[:], resampled_whole(whole))
    assert torch.equal(mono_sound(whole, "audio").samples[:], sound.samples[:])


@pytest.mark.parametrize("delay_ms", [-2500, -300, 0, 300])
def test_read_mono_equals_the_sound_of_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay_ms: int) -> None:
    path, delay = tmp_path / "a.mp4", Fraction(delay_ms, 1000)
    waveform = Waveform(torch.randn(2, SECONDS * 44100, generator=torch.Generator().manual_seed(0)) / 9, 44100)
    with VideoWriter(path, rate=Fraction(25), height=32, width=32, crf=30, waveform=waveform) as writer:
        for level in range(SECONDS * 25):
            writer.write(np.full((32, 32, 3), level, np.uint8))
    picture_start = reader._picture_start(path, "a.mp4")  # pyright: ignore[reportPrivateUsage]
    assert picture_start is not None
    monkeypatch.setattr(reader, "_picture_start", lambda *_: picture_start - delay)
    whole, sound = read_audio(path), read_mono(path)
    assert whole.duration_seconds == pytest.approx(SECONDS + delay, abs=0.1)
    assert torch.equal(sound.samples[:], resampled_whole(whole))
    assert sound.warnings == whole.warnings
    assert bool(sound.warnings) == (delay < 0)
    short = Fraction(1, 5)  # shorter than the longest delay
    assert torch.equal(read_mono(path, duration_seconds=short).samples[:], resampled_whole(whole.pad_or_trim(short)))


def test_read_mono_follows_a_change_of_the_rate(tmp_path: Path) -> None:
    """Two MP3 files joined by `cat`: the rate and the number of channels change within the file."""
    path = tmp_path / "a.mp3"
    for layout, rate in (("mono", 44100), ("stereo", 24000)):
        with av.open(str(tmp_path / "part.mp3"), "w") as out:
            stream = out.add_stream("libmp3lame", rate=rate, layout=layout)
            samples = tone(1 if layout == "mono" else 2, rate).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16p", layout=layout)
            frame.sample_rate = rate
            for piece in av.AudioResampler("s16p", layout, rate, 1152).resample(frame):
                out.mux(stream.encode(piece))
            out.mux(stream.encode(None))
        with path.open("ab") as joined:
            joined.write((tmp_path / "part.mp3").read_bytes())
    whole, sound = read_audio(path), read_mono(path)
    assert len(whole.warnings) == 2
    assert sound.warnings == whole.warnings
    assert torch.equal(sound.samples[:], resampled_whole(whole))


def test_read_mono_fills_a_long_gap_in_parts(tmp_path: Path) -> None:
    path, rate, gap = tmp_path / "a.mkv", 8000, 120
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate, layout="mono")
        for seconds in (0, gap + 1):
            frame = av.AudioFrame.from_ndarray(tone(1, rate).astype(np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, seconds * rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    tracemalloc.start()
    sound = read_mono(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sound.duration_seconds == gap + 2
    assert torch.equal(sound.samples[:], resampled_whole(read_audio(path)))
    assert peak < 4 * gap * rate / 5, "a fifth of the silence as float32"


def test_read_mono_logs_why_it_reads_the_whole_audio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, decodable = wav(tmp_path, 2, 48000), reader._decodable_frames  # pyright: ignore[reportPrivateUsage]

    def without_first_timestamp(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        for number, frame in enumerate(decodable(container, stream)):
            frame.pts = frame.pts if number else None
            yield frame

    monkeypatch.setattr(reader, "_decodable_frames", without_first_timestamp)
    caplog.set_level("INFO", reader.log.name)
    sound = read_mono(path)
    assert torch.equal(sound.samples[:], resampled_whole(read_audio(path)))
    assert "a.wav is read as a whole. Its audio changes its format, or begins without a timestamp" in caplog.text


def test_score_of_stored_sound_equals_score_of_the_waveform(tmp_path: Path) -> None:
    levels = brightness(150)
    track = track_at(levels)
    track = replace(track, mouth_openings=np.random.default_rng(1).random(150))
    noise = np.tile(tone(1, 16000), 6) / 32768 * np.repeat(levels / 255, 640)
    make_wav(tmp_path / "a.wav", (noise * 32767).astype(np.int16), 16000)
    whole, stored = read_audio(tmp_path / "a.wav"), read_mono(tmp_path / "a.wav")
    assert isinstance(stored.samples, StoredSamples)
    in_ram = MonoSound(whole.samples[0], whole.duration_seconds)
    expected, score = (score_track(track, sound, syncnet=LevelNet()) for sound in (in_ram, stored))
    assert expected.sync is not None
    assert score.sync is not None
    assert np.array_equal(score.sync.distances, expected.sync.distances, equal_nan=True)
    assert score.to_json() == expected.to_json()
    of_mouth = score_video(track.source, stored, models_dir=tmp_path, face=track)
    assert of_mouth.to_json() == score_track(track, whole).to_json()


def test_stored_samples_read_any_part() -> None:
    samples = torch.arange(10_000, dtype=torch.float32)
    stored = StoredSamples(samples.split(999))
    for part in (slice(None), slice(0), slice(5, 7), slice(9_990, 20_000), slice(7, 5), slice(-3, None)):
        assert torch.equal(stored[part], samples[part])
    assert torch.equal(torch.cat(list(stored.split(4_096))), samples)
    stored.fit(10_002)
    assert stored[9_998:].tolist() == [9998, 9999, 0, 0]
    stored.fit(3)
    assert (len(stored), stored[:].tolist()) == (3, [0, 1, 2])
    stored.fit(6)
    assert stored[:].tolist() == [0, 1, 2, 0, 0, 0]


def test_read_mono_names_bad_samples(tmp_path: Path) -> None:
    samples = torch.zeros(2, 48_000)
    samples[1, [20_000, 30_000]] = torch.nan
    with pytest.raises(AudioError, match=r'"voice" contains 2 NaN or infinite samples\. The first is at 0\.417 s\.'):
        mono_sound(Waveform(samples, 48_000), "voice")
    with pytest.raises(AudioError, match=r"peak of 300, but full scale is 1"):
        mono_sound(Waveform(torch.full((1, 48_000), -300.0), 48_000), "voice")
    make_wav(tmp_path / "short.wav", tone(2, 48_000, 0.005), 48_000)
    with pytest.raises(AudioError, match=r'"voice" is shorter than 10 ms \(240 samples\)'):
        read_mono(tmp_path / "short.wav", name="voice")


def test_read_mono_names_a_missing_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wav(tmp_path, 2, 48000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match=r"missing cannot store the sound at 16 kHz \(.*\)\. Free 230 MB"):
        read_mono(path)
