"""Feature extraction as a whole, and what each silence mode does to the frames."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from latentsync.audio import features, plot, waveform
from latentsync.audio.driving_audio import DrivingAudio, prepare_driving_audio
from latentsync.audio.features import AudioFeatures, AudioSettings, Silence
from latentsync.audio.vad import VoiceActivity
from latentsync.audio.waveform import Waveform
from latentsync.compositing.compositor import Composite, composite, lip_opacity
from latentsync.compositing.settings import BlendSettings
from latentsync.errors import AudioError, UsageError
from latentsync.faces.face_track import FaceTrack
from latentsync.sampling import sampler, windows
from latentsync.sampling.lip_track import LipTrack
from latentsync.sampling.settings import SamplerSettings
from latentsync.video.timeline import Timeline
from tests.support import procedural, tiny_networks

RATE = waveform.SAMPLE_RATE
PAUSE = slice(35, 65)  # of 2 s from 0.8 s on, in frames that neither hold time nor lead time reach
TALK = Waveform(
    torch.cat([torch.from_numpy(procedural.speech(s)) * g for s, g in ((0.8, 1), (2.0, 0), (0.4, 1))])[None], RATE
)


@cache
def extracted(silence: Silence) -> tuple[AudioFeatures, VoiceActivity]:
    return extract(prepare_driving_audio(TALK), AudioSettings(silence=silence))


def extract(driving_audio: DrivingAudio, settings: AudioSettings) -> tuple[AudioFeatures, VoiceActivity]:
    steps = features.extract_features(driving_audio, tiny_networks.whisper(), settings)
    return features.collect_features(steps, driving_audio, settings)


@cache
def lips(silence: Silence) -> tuple[LipTrack, list[range]]:
    clip = tiny_networks.Clip({"height": 180, "width": 240, "scale": 0.5, "frames": 80})
    track = FaceTrack(clip, clip.points(clip.frame_count))
    timeline = Timeline(Fraction(25), tuple(range(80)))
    features = extracted(silence)[0]
    settings = SamplerSettings(seed=1, num_inference_steps=1, guidance_scale=1.0)
    samples = sampler.sample_windows(
        tiny_networks.unet("unet_tiny"), tiny_networks.vae(), track, features, timeline, settings, 64
    )
    made = sampler.build_lip_track(samples, track, timeline, TALK, tiny_networks.vae())
    return made, windows.plan_windows(track, features, timeline)


@cache
def frames(silence: Silence) -> list[Composite]:
    return list(composite([lips(silence)[0]], BlendSettings("full crop", color_match=False)))


def test_extract_features_counts_its_steps() -> None:
    settings, driving_audio = AudioSettings(), prepare_driving_audio(TALK)
    steps = list(features.extract_features(driving_audio, tiny_networks.whisper(), settings))
    assert len(steps) == features.num_feature_steps(driving_audio, settings)
    assert sum(step.hidden_states is not None for step in steps) == 4  # silence, speech in two halves, silence


def test_extract_features_pads_fp16_states_with_silence() -> None:
    features, _ = extracted("model")
    assert features.hidden_states.dtype == torch.float16
    assert (features.start, len(features.hidden_states)) == (-4, 4 + 160 + 5)
    assert features.is_speech is None
    assert features.waveform is TALK


def test_silence_close_mouth_changes_only_the_pause() -> None:
    plain, closed = extracted("model")[0].hidden_states, extracted("close mouth")[0].hidden_states
    same = (plain == closed).flatten(1).all(dim=1)
    assert extracted("close mouth")[0].is_speech is None, "every frame is still regenerated"
    assert same[4 : 4 + 40].all()
    assert not same[4 + 70 : 4 + 130].any()


def test_silence_keep_original_keeps_every_bit() -> None:
    kept, _ = lips("keep original")
    assert (kept.latent_index[PAUSE] < 0).all()
    for i, made in enumerate(frames("keep original")):
        assert np.array_equal(made.frame, made.source) == (kept.latent_index[i] < 0)


def test_silence_keep_original_skips_sampling() -> None:
    (everything, windows), (kept, fewer) = lips("model"), lips("keep original")
    assert len(windows) == 5
    assert len(fewer) < len(windows)
    assert len(kept.latents) == (kept.latent_index >= 0).sum() < len(everything.latents) == 80


def test_silence_keep_original_fades_three_frames() -> None:
    kept, _ = lips("keep original")
    last = int(np.flatnonzero(kept.latent_index >= 0)[np.flatnonzero(kept.latent_index >= 0) < PAUSE.start].max())
    assert lip_opacity(kept)[last - 3 : last + 2].tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    full = frames("model")
    for i in (last - 2, last - 1, last):
        made, whole = frames("keep original")[i], full[i]
        share = (
            np.abs(made.frame.astype(float) - made.source).sum()
            / np.abs(whole.frame.astype(float) - whole.source).sum()
        )
        assert share == pytest.approx(lip_opacity(kept)[i], abs=0.1)  # rounded to levels; another window's lips


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (Fraction(25), [False, True, True, False, False]),
        (Fraction(30_000, 1001), [False, False, True, False, False]),
        (Fraction(50), [False, False, False, True, True]),
    ],
)
def test_silence_frame_with_any_speech_is_speech(rate: Fraction, expected: list[bool]) -> None:
    is_speech = np.zeros(12, dtype=bool)
    is_speech[7:10] = True  # 70 to 100 ms
    features = AudioFeatures(torch.zeros(6, 5, 384), TALK, is_speech=is_speech)
    assert features.speech_frames(Timeline(rate, (0,) * 5)).tolist() == expected


def test_silence_without_any_speech_is_an_error() -> None:
    hiss = Waveform(0.1 * tiny_networks.normal(1, 1, 2 * RATE), RATE)
    with pytest.raises(AudioError, match=r"The recording has no speech .* Lower \"threshold_db\""):
        extract(prepare_driving_audio(hiss), AudioSettings(silence="keep original", threshold_db=10.0))


def test_extract_features_incomplete_steps_are_refused() -> None:
    settings, driving_audio = AudioSettings(), prepare_driving_audio(TALK)
    steps = list(features.extract_features(driving_audio, tiny_networks.whisper(), settings))[:-1]
    with pytest.raises(AudioError, match="Internal error: feature extraction stopped at 164 of 169 positions"):
        features.collect_features(steps, driving_audio, settings)


@pytest.mark.parametrize("wrong", [{"threshold_db": 0.5}, {"threshold_db": float("nan")}, {"hangover_s": -1.0}])
def test_audio_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        AudioSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("offset_seconds", [Fraction(0), Fraction(-3, 10), Fraction(3, 10)])
def test_plot_shades_the_speech(offset_seconds: Fraction) -> None:
    driving_audio = prepare_driving_audio(TALK, offset_seconds=offset_seconds)
    speech = extract(driving_audio, AudioSettings())[1]
    picture = np.asarray(plot.plot_speech(speech, driving_audio))
    assert picture.shape == (308, 1024, 3)
    shaded = (picture[plot.WAVE_PX - 2] == (0xD8, 0xF0, 0xD8)).all(axis=-1)
    expected = speech.is_speech[(np.arange(1024) / 1024 * len(speech.is_speech)).astype(int)]
    assert (shaded == expected).mean() > 0.98, "a pixel on either side of an edge"
    wave = (picture[2 : plot.WAVE_PX // 2 - 2] == (0x50, 0x60, 0x70)).all(axis=-1).any(axis=0)
    assert wave[~expected].mean() < 0.1 < wave[expected].mean()


def test_plot_accepts_very_short_audio() -> None:
    driving_audio = prepare_driving_audio(Waveform(0.5 * tiny_networks.normal(2, 1, 160), RATE))
    speech = extract(driving_audio, AudioSettings())[1]
    assert plot.plot_speech(speech, driving_audio).size == (1024, 308)
