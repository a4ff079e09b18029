"""Turns: their text, and the frames that they leave to a person."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from latentsync.audio.features import AudioFeatures
from latentsync.audio.turns import Turn, parse_turns, parse_turns_of_people
from latentsync.audio.waveform import Waveform
from latentsync.errors import AudioError, UsageError
from latentsync.video.timeline import Timeline

FIRST, SECOND = Turn(Fraction(0), Fraction(9, 2)), Turn(Fraction(9), Fraction(12))
SECONDS = 4


def features(is_speech: np.ndarray | None = None) -> AudioFeatures:
    return AudioFeatures(
        torch.zeros(50 * SECONDS, 5, 384), Waveform(torch.zeros(1, 16000 * SECONDS), 16000), 0, is_speech
    )


def test_parse_turns_reads_seconds() -> None:
    assert parse_turns("0-4.5, 9-12") == parse_turns(" 0 - 4.5,9.0-12 ") == (FIRST, SECOND)
    assert parse_turns("") == parse_turns("  ") == ()


@pytest.mark.parametrize("text", ["4.5", "a-b", "-1-2", "1-2,", "1-2; 3-4", "1: 0-4", "0-1e9", "1:05-1:20", "inf-nan"])
def test_parse_turns_refuses_other_text(text: str) -> None:
    with pytest.raises(UsageError, match=r'"turns" cannot be .*Enter times in seconds, such as 0-4\.5, 9-12\.'):
        parse_turns(text)


@pytest.mark.parametrize("text", ["2-1", "1-1"])
def test_parse_turns_refuses_an_end_before_its_start(text: str) -> None:
    with pytest.raises(UsageError, match=f'"turns" contains {text}, which ends before it begins'):
        parse_turns(f"0-1, {text}")


def test_parse_turns_of_people_numbers_them() -> None:
    assert parse_turns_of_people("1: 0-4.5 / 3: 9-12", 2) == {1: (FIRST,), 3: (SECOND,)}
    assert parse_turns_of_people("0-4.5, 9-12", 2) == {2: (FIRST, SECOND)}
    assert parse_turns_of_people("", 2) == {2: ()}


@pytest.mark.parametrize(
    "text", ["1: 0-1 / 1: 2-3", "0: 0-1", "one: 0-1", "1: 0-1 / 2-3", "1:", "1: ", "1: 0-1 /", "1: 0-1 / 2: "]
)
def test_parse_turns_of_people_refuses_other_text(text: str) -> None:
    with pytest.raises(UsageError, match=r'"turns" cannot be .*Enter each person once, by number'):
        parse_turns_of_people(text, 1)


def test_turn_text_keeps_hundredths_in_long_recordings() -> None:
    (turn,) = parse_turns("12345.67-12350")
    assert str(turn) == "12345.67-12350"


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_during_leaves_the_frames_of_the_turns(rate: Fraction) -> None:
    timeline = Timeline(rate, tuple(range(int(SECONDS * rate))))
    turns = parse_turns("0.4-1.2, 2.8-9")
    times = np.arange(timeline.frame_count + 1) / float(rate)
    shown = (times[:-1] < 1.2 - 1e-9) & (times[1:] > 0.4 + 1e-9) | (times[1:] > 2.8 + 1e-9)
    np.testing.assert_array_equal(features().during(turns).speech_frames(timeline), shown)
    assert features().during(turns).params["turns"] == "0.4-1.2, 2.8-9"


def test_during_two_people_share_no_frame_at_an_edge() -> None:
    timeline = Timeline(Fraction(25), tuple(range(25 * SECONDS)))
    first, second = (features().during(parse_turns(text)).speech_frames(timeline) for text in ("0-1.48", "1.48-4"))
    np.testing.assert_array_equal(first, ~second)
    assert first.sum() == 37


def test_during_keeps_pauses_of_the_recording() -> None:
    is_speech = np.zeros(100 * SECONDS, bool)
    is_speech[50:150] = True
    limited = features(is_speech).during(parse_turns("1-3"))
    assert limited.is_speech is not None
    assert np.flatnonzero(limited.is_speech).tolist() == list(range(100, 150))
    with pytest.raises(AudioError, match=r'no speech in the turns 2-3\. Set "silence" to "model", or change "turns"\.'):
        features(is_speech).during(parse_turns("2-3"))


def test_during_refuses_a_turn_after_the_end() -> None:
    with pytest.raises(AudioError, match=r'"turns" contains 4-5, but the recording is only 4\.00 s long\.'):
        features().during(parse_turns("0-1, 4-5"))


def test_during_without_turns_changes_nothing() -> None:
    whole = features()
    assert whole.during(()) is whole
