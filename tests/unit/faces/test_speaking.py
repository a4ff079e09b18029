"""Select the person whose mouth follows the sound."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from latentsync.audio.levels import frame_levels
from latentsync.audio.mono import mono_sound
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError, FaceError, UsageError
from latentsync.faces.identities import FaceAt, Identities, Identity, select, speech_correlation
from latentsync.faces.lip_correlation import MIN_OPENINGS
from latentsync.output.video_writer import VideoWriter
from latentsync.stages import read_speech, select_face
from latentsync.video.video_file import VideoFile
from scripts.sample_clip import make_sample
from tests.support.image_clip import black

COUNT, RATE = 150, 25
SAMPLES = 640  # a frame at 16 kHz


def talk(seed: int) -> np.ndarray:
    """A mouth that opens and closes about four times a second, with pauses: float64 (COUNT,), 0 to 0.3."""
    random = np.random.default_rng(seed)
    movement = np.convolve(random.random(COUNT + 4), np.ones(3) / 3, "same")[2:-2]
    is_pause = np.repeat(random.random(COUNT // 15) < 0.3, 15)
    return np.where(is_pause, 0.0, 0.3 * movement)


def speech(openings: np.ndarray, channels: int = 1) -> Waveform:
    """Noise that is as loud as a mouth is open, at 16 kHz."""
    noise = np.random.default_rng(9).uniform(-1, 1, (channels, len(openings) * SAMPLES))
    return Waveform(torch.from_numpy(np.repeat(openings, SAMPLES) * noise).float(), RATE * SAMPLES)


def person(number: int, openings: np.ndarray, left: float = 10) -> Identity:
    """A face at one place in every frame."""
    boxes = np.tile([left, 10, left + 30, 40], (COUNT, 1)).astype(float)
    points = boxes[:, None, :2] + np.array([[8, 8], [22, 8], [15, 20]])
    ones, looks = np.ones(COUNT), np.zeros((1, 12, 16, 3), np.float32)
    return Identity(number, np.arange(COUNT), points, boxes, ones, 0 * ones, openings, looks)


def seen(identity: Identity, frames: slice) -> Identity:
    """The identity in some of its frames."""
    names = ("frames", "points", "boxes", "scores", "yaws", "mouth_openings")
    return replace(identity, **{name: getattr(identity, name)[frames] for name in names})


def people(*members: Identity) -> Identities:
    return Identities(black(COUNT), members, ())


ANN, BOB = person(1, talk(1)), person(2, talk(2), left=150)


@pytest.mark.parametrize("swapped", [False, True])
def test_speaking_follows_the_sound(swapped: bool) -> None:
    members = (BOB, ANN) if swapped else (ANN, BOB)
    for speaker in members:
        sound = speech(speaker.mouth_openings, channels=2)
        selection = select_face(people(*members), "speaking", speech_of_source=sound)
        assert selection.identity.center_px[0] == speaker.center_px[0]
        assert [one.number for one in selection.identities.members] == [1, 2]
        assert selection.track.params["face"] == "speaking"


@pytest.mark.parametrize("lag", [-3, 3])
def test_speaking_allows_a_lag(lag: int) -> None:
    sound = speech(np.roll(BOB.mouth_openings, lag))
    assert select_face(people(ANN, BOB), "speaking", speech_of_source=sound).identity.center_px[0] > 100
    levels = frame_levels(mono_sound(sound, "sound").samples, [Fraction(i, RATE) for i in range(COUNT + 1)])
    assert speech_correlation(BOB, levels, Fraction(RATE)) > 0.9
    assert speech_correlation(BOB, np.roll(levels, 2 * np.sign(lag)), Fraction(RATE)) < 0.5, "five frames are too many"


def test_speaking_counts_the_frames_of_each_person() -> None:
    """Each is seen for a part of the clip, and the sound ends early."""
    ann, bob = seen(ANN, slice(20, 80)), seen(BOB, slice(40, 130))
    for speaker in (ANN, BOB):
        sound = speech(speaker.mouth_openings[:110])
        selection = select_face(people(ann, bob), "speaking", speech_of_source=sound)
        assert selection.identity.center_px[0] == speaker.center_px[0]


@pytest.mark.parametrize("frames", [MIN_OPENINGS - 1, MIN_OPENINGS])
def test_speaking_puts_brief_people_last(frames: int) -> None:
    """The sound is Ann's, but Bob is the only one who is seen for long."""
    brief = seen(ANN, slice(60, 60 + frames))
    sound = speech(ANN.mouth_openings)
    first = select_face(people(brief, BOB), "speaking", speech_of_source=sound).identity
    assert (first.center_px[0] == ANN.center_px[0]) == (frames >= MIN_OPENINGS)


def test_speaking_ignores_frames_without_opening() -> None:
    openings = BOB.mouth_openings.copy()
    openings[::3] = np.nan
    bob, sound = replace(BOB, mouth_openings=openings), speech(BOB.mouth_openings)
    assert select_face(people(ANN, bob), "speaking", speech_of_source=sound).identity.center_px[0] > 100


def test_speaking_orders_the_others_after_face_at() -> None:
    selection = select_face(people(ANN, BOB), "speaking", at=FaceAt(20, 20), speech_of_source=speech(talk(2)))
    assert selection.identity.center_px[0] == ANN.center_px[0]


def test_speaking_ignores_the_sound_if_there_is_a_picture() -> None:
    reference = np.zeros((12, 16, 3), np.float32)
    assert select_face(people(ANN, BOB), "speaking", reference=reference).identity.number == 1


@pytest.mark.parametrize("case", ["unknown openings", "still mouths", "silence", "noise of 16 bits", "short"])
def test_speaking_names_what_cannot_be_compared(case: str) -> None:
    members, sound = (ANN, BOB), speech(talk(1))
    if case == "unknown openings":
        members = tuple(replace(one, mouth_openings=np.full(COUNT, np.nan)) for one in members)
    elif case == "still mouths":
        jitter = np.random.default_rng(3).uniform(0.1, 0.105, COUNT)  # landmarks are rounded
        members = tuple(replace(one, mouth_openings=jitter) for one in members)
    elif case == "short":
        members = tuple(seen(one, slice(MIN_OPENINGS - 1)) for one in members)
    else:
        sound = speech(talk(1) * {"silence": 0.0, "noise of 16 bits": 2.0**-15}[case])
    with pytest.raises(FaceError, match=r'no mouth in clip can be compared .* choose another order in "face"'):
        select_face(people(*members), "speaking", speech_of_source=sound)


def test_speaking_needs_sound() -> None:
    with pytest.raises(AudioError, match=r'clip has no sound .* Set "speech_of_source" to the sound'):
        select_face(people(ANN, BOB), "speaking")
    with pytest.raises(UsageError, match=r"there is no sound\. Provide the level"):
        select(people(ANN, BOB), "speaking")


def test_speaking_refuses_a_silent_film(tmp_path: Path) -> None:
    video = make_sample(tmp_path, seconds=0.3).video
    with pytest.raises(AudioError, match=rf'{video.name} has no sound .* Set "speech_of_source"'):
        read_speech(VideoFile(video))


def test_speaking_takes_the_sound_of_the_file(tmp_path: Path) -> None:
    """The sound of a part of a file begins with its first frame."""
    sound = speech(BOB.mouth_openings)
    with VideoWriter(tmp_path / "clip.mp4", rate=Fraction(RATE), height=64, width=64, waveform=sound) as writer:
        for frame in black(COUNT, 64, 64).frames:
            writer.write(frame)
    file, later = tmp_path / "clip.mp4", VideoFile(tmp_path / "clip.mp4", start_seconds=Fraction(2))
    for source in (VideoFile(file), VideoFile(BytesIO(file.read_bytes()))):
        assert select_face(replace(people(ANN, BOB), source=source), "speaking").identity.center_px[0] > 100
    assert later.start_seconds == 2
    times = [Fraction(i, RATE) for i in range(COUNT - 50)]
    levels = frame_levels(read_speech(later).samples, times)
    np.testing.assert_allclose(
        levels, frame_levels(mono_sound(sound, "sound").samples, [time + 2 for time in times]), atol=0.03
    )  # AAC


def test_frame_levels_are_those_of_the_frames() -> None:
    """A tone in the second of three frames, and the sound ends within the fourth."""
    time = np.arange(round(3.5 * SAMPLES)) / 16_000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time) * ((time >= 0.04) & (time < 0.08))
    levels = frame_levels(torch.from_numpy(tone).float(), [Fraction(i, 25) for i in range(5)])
    assert levels[0] == 0
    assert levels[1] == pytest.approx(0.5 / np.sqrt(2), rel=0.05), "the filter settles within a few samples"
    assert levels[2] < 0.1 * levels[1]
    assert np.isnan(levels[3])


def test_frame_levels_leave_hum_out() -> None:
    hum, voice = (
        frame_levels(
            torch.sin(2 * torch.pi * hertz * torch.arange(16_000) / 16_000),
            [Fraction(i, 25) for i in range(26)],
        )[-1]
        for hertz in (50, 1000)
    )
    assert hum < 0.05 * voice
