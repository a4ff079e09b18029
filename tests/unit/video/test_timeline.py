"""Timelines: counts, order and windows, for every usual frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.audio.waveform import Waveform
from latentsync.errors import UsageError
from latentsync.sampling.windows import split_windows
from latentsync.video.timeline import (
    MODEL_RATE,
    STRETCH,
    LengthMode,
    Timeline,
    build_timeline,
    hold,
    loop,
    num_frames,
    output_rate,
    ping_pong,
)

RATES = [
    *(Fraction(rate) for rate in (24, 25, 30, 50)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 60)),
]
rates = st.sampled_from(RATES)
lengths = st.integers(1, 100)
STRETCHED: LengthMode = "audio (stretch video)"
modes: st.SearchStrategy[LengthMode] = st.sampled_from([mode for mode in get_args(LengthMode) if mode != STRETCHED])
sample_rates = st.sampled_from([16000, 22050, 44100, 48000])


@dataclass(frozen=True)
class Clip:
    """A source of constant frame rate without frames."""

    frame_count: int
    rate: Fraction
    name: str = "clip"
    height: int = 1
    width: int = 1

    @property
    def duration_seconds(self) -> Fraction:
        return self.frame_count / self.rate

    def index_at(self, seconds: Fraction) -> int:
        return min(max(int(seconds * self.rate // 1), 0), self.frame_count - 1)

    def time_of(self, index: int) -> Fraction:
        return index / self.rate

    def read(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        raise NotImplementedError


@given(lengths, rates)
def test_timeline_frames_have_exact_length(count: int, rate: Fraction) -> None:
    assert num_frames(count / rate, rate) == count


@given(lengths, rates, sample_rates, st.sampled_from(["floor", "ceil"]))
def test_timeline_whole_samples_give_exact_frames(count: int, rate: Fraction, hertz: int, rounding: str) -> None:
    samples = count / rate * hertz
    whole = samples // 1 if rounding == "floor" else -(-samples // 1)
    assert num_frames(Fraction(whole, hertz), rate) == count


def test_timeline_empty_audio_still_has_one_frame() -> None:
    assert num_frames(Fraction(0), Fraction(25)) == 1
    assert num_frames(Fraction(1, 50), Fraction(25)) == 1
    assert num_frames(Fraction(3, 50), Fraction(25)) == 2, "halves go up"


@given(lengths, st.integers(0, 1000))
def test_ping_pong_moves_by_one_and_repeats_ends(length: int, start: int) -> None:
    there = [ping_pong(i, length) for i in range(start, start + 2 * length + 1)]
    assert there[0] == there[-1]
    assert sorted(there[:-1]) == sorted([*range(length)] * 2)
    for a, b in pairwise(there):
        assert abs(a - b) == 1 or (a == b and a in (0, length - 1))


@given(lengths, rates, modes, st.floats(0, 5))
def test_timeline_first_seconds_are_its_beginning(
    frames: int, rate: Fraction, mode: LengthMode, seconds: float
) -> None:
    """A trial run shows what the whole run begins with, and never more."""
    whole = build_timeline(Clip(50, rate), frames / rate, rate, mode)
    start = whole.first(seconds)
    wanted = num_frames(Fraction(seconds), rate) if seconds else whole.frame_count
    assert start.frame_count == min(wanted, whole.frame_count)
    assert start.source_index == whole.source_index[: start.frame_count]
    assert start.sound_frames == min(whole.sound_frames or 0, start.frame_count)
    assert whole.first(0) == whole


def test_ping_pong_by_hand() -> None:
    assert [ping_pong(i, 3) for i in range(8)] == [0, 1, 2, 2, 1, 0, 0, 1]


@given(lengths, rates, lengths, rates)
def test_timeline_lasts_as_long_as_the_audio(
    video_frames: int, source_rate: Fraction, audio_frames: int, rate: Fraction
) -> None:
    timeline = build_timeline(Clip(video_frames, source_rate), audio_frames / rate, rate)
    assert (timeline.frame_count, timeline.rate) == (audio_frames, rate)
    assert timeline.duration_seconds == audio_frames / rate
    assert all(0 <= i < video_frames for i in timeline.source_index)


@given(lengths, rates, lengths)
def test_timeline_source_fps_shows_every_frame(video_frames: int, rate: Fraction, audio_frames: int) -> None:
    timeline = build_timeline(Clip(video_frames, rate), audio_frames / rate, rate)
    assert timeline.source_index == tuple(ping_pong(i, video_frames) for i in range(audio_frames))


@given(lengths, rates)
def test_timeline_first_pass_is_forward_and_on_time(video_frames: int, source_rate: Fraction) -> None:
    clip = Clip(video_frames, source_rate)
    indices = build_timeline(clip, clip.duration_seconds).source_index
    assert list(indices) == sorted(indices)
    for position, i in enumerate(indices[: video_frames - 1]):
        assert 0 <= position / MODEL_RATE - i / source_rate < 1 / source_rate or i == video_frames - 1


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 20))
def test_windows_cover_active_frames_once(active: list[bool], longest: int) -> None:
    windows = list(split_windows(active, longest))
    assert [i for window in windows for i in window] == [i for i, on in enumerate(active) if on]
    assert all(1 <= len(window) <= longest for window in windows)
    for a, b in pairwise(windows):
        assert len(a) == longest or a.stop < b.start, "only the last window of a run is short"


@given(st.lists(st.integers(0, 2), max_size=80), st.integers(1, 20), st.data())
def test_windows_with_overlap_cover_active_frames(active: list[int], longest: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, longest - 1))
    windows = list(split_windows(active, longest, overlap))
    assert sorted({i for window in windows for i in window}) == [i for i, on in enumerate(active) if on]
    for window in windows:
        assert 1 <= len(window) <= longest
        assert len({active[i] for i in window}) == 1, "no window goes across a change"
    for a, b in pairwise(windows):
        assert a.stop < b.stop, "each adds a frame"
        assert b.start >= a.stop or (a.stop - b.start == overlap and len(a) == longest)
    assert overlap > 0 or windows == list(split_windows(active, longest))


def test_windows_with_overlap_by_hand() -> None:
    assert list(split_windows([1] * 33, 16, 4)) == [range(16), range(12, 28), range(24, 33)]
    assert list(split_windows([1] * 28, 16, 4)) == [range(16), range(12, 28)], "a third would add nothing"
    assert list(split_windows([1] * 3, 16, 4)) == [range(3)]
    assert list(split_windows([1] * 17 + [2] * 3, 16, 4)) == [range(16), range(12, 17), range(17, 20)]


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-25)])
def test_timeline_fps_must_be_positive(rate: Fraction) -> None:
    with pytest.raises(UsageError, match="above 0"):
        Timeline(rate, (0,))


def test_timeline_must_have_frames() -> None:
    with pytest.raises(UsageError, match="no frame"):
        Timeline(Fraction(25), ())


def test_timeline_auto_keeps_supported_fps() -> None:
    for rate in RATES:
        assert output_rate(rate, "source") == rate
        assert output_rate(rate, "25") == 25
        assert output_rate(rate) == (rate if rate <= 30 else 25)
    assert output_rate(Fraction(31)) == 31
    assert output_rate(Fraction(23)) == 23
    assert output_rate(Fraction(2299, 100)) == 25
    assert output_rate(Fraction(15)) == 25


@given(lengths, rates, lengths, sample_rates, modes, st.sampled_from(["auto", "25", "source"]))
def test_timeline_length_is_exact_in_every_mode(
    video_frames: int, source_rate: Fraction, audio_frames: int, hertz: int, mode: LengthMode, choice: str
) -> None:
    rate = output_rate(source_rate, choice)
    waveform = Waveform(torch.zeros(1, round(audio_frames / rate * hertz)), hertz)
    clip = Clip(video_frames, source_rate)
    timeline = build_timeline(clip, waveform.duration_seconds, rate, mode)
    whole = num_frames(clip.duration_seconds, rate)
    expected = {"video": whole, "shortest": min(whole, audio_frames)}.get(mode, audio_frames)
    assert (timeline.frame_count, timeline.rate) == (expected, rate)
    assert timeline.sound_frames == min(expected, audio_frames)
    fitted = waveform.fit_to(timeline.frame_count, timeline.rate)
    assert num_frames(fitted.duration_seconds, rate) == expected
    assert abs(fitted.duration_seconds - timeline.duration_seconds) <= Fraction(1, 2 * hertz), "half a sample"
    assert fitted is waveform or expected != audio_frames, "a waveform of the right length is not copied"


@given(lengths, rates, lengths, modes)
def test_timeline_frames_are_exact_in_every_mode(
    video_frames: int, rate: Fraction, audio_frames: int, mode: LengthMode
) -> None:
    """At the frame rate of the source, the mode alone decides which frame each output frame shows."""
    timeline = build_timeline(Clip(video_frames, rate), audio_frames / rate, rate, mode)
    expected = {
        "audio (ping-pong)": lambda i: [*range(video_frames), *reversed(range(video_frames))][i % (2 * video_frames)],
        "audio (loop)": lambda i: i % video_frames,
        "audio (hold last frame)": lambda i: min(i, video_frames - 1),
    }.get(mode, lambda i: i)
    assert timeline.source_index == tuple(expected(i) for i in range(timeline.frame_count))


def test_timeline_other_modes_by_hand() -> None:
    assert [loop(i, 3) for i in range(8)] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [hold(i, 3) for i in range(5)] == [0, 1, 2, 2, 2]


@given(st.integers(40, 200), rates, rates, st.fractions(*STRETCH) | st.sampled_from([*STRETCH, Fraction(1)]))
def test_stretch_shows_the_nearest_frame(
    video_frames: int, source_rate: Fraction, rate: Fraction, ratio: Fraction
) -> None:
    clip = Clip(video_frames, source_rate)
    timeline = build_timeline(clip, ratio * clip.duration_seconds, rate, STRETCHED)
    assert timeline.frame_count == num_frames(ratio * clip.duration_seconds, rate)
    places = [i / rate / ratio * source_rate for i in range(timeline.frame_count)]  # in source frames
    assert timeline.source_index == tuple(min(int(place + Fraction(1, 2)), video_frames - 1) for place in places)


@given(lengths, rates)
def test_stretch_by_one_shows_every_frame(video_frames: int, rate: Fraction) -> None:
    clip = Clip(video_frames, rate)
    assert build_timeline(clip, clip.duration_seconds, rate, STRETCHED).source_index == tuple(range(video_frames))


def test_stretch_by_hand() -> None:
    clip = Clip(4, Fraction(25))
    assert build_timeline(clip, Fraction(5, 25), length=STRETCHED).source_index == (0, 1, 2, 2, 3)
    clip = Clip(5, Fraction(25))
    assert build_timeline(clip, Fraction(4, 25), length=STRETCHED).source_index == (0, 1, 3, 4)


def test_stretch_follows_a_variable_frame_rate() -> None:
    """Frames at 0, 1, 3 and 6 of 7 ticks: the nearest in time, not the one on display."""
    times = [Fraction(tick, 25) for tick in (0, 1, 3, 6)]

    class Uneven(Clip):
        duration_seconds = Fraction(7, 25)

        def index_at(self, seconds: Fraction) -> int:
            return max(i for i, time in enumerate(times) if time <= seconds)

        def time_of(self, index: int) -> Fraction:
            return times[index]

    assert build_timeline(Uneven(4, Fraction(25)), Fraction(7, 25), length=STRETCHED).source_index == (
        0,
        1,
        2,
        2,
        2,
        3,
        3,
    )


@pytest.mark.parametrize("ratio", [Fraction(79, 100), Fraction(126, 100), Fraction(3)])
def test_stretch_refuses_other_ratios(ratio: Fraction) -> None:
    clip = Clip(100, Fraction(25))
    with pytest.raises(
        UsageError, match=rf"is {float(ratio):.3f} times as long as clip.*0\.8 to 1\.25.*ping-pong.*cut"
    ):
        build_timeline(clip, ratio * clip.duration_seconds, length=STRETCHED)


@given(lengths, rates, sample_rates, st.sampled_from(STRETCH), st.sampled_from(["floor", "ceil"]))
def test_stretch_limits_forgive_whole_samples(
    video_frames: int, rate: Fraction, hertz: int, ratio: Fraction, rounding: str
) -> None:
    clip = Clip(video_frames, rate)
    samples = ratio * clip.duration_seconds * hertz
    seconds = Fraction(samples // 1 if rounding == "floor" else -(-samples // 1), hertz)
    assert build_timeline(clip, seconds, rate, STRETCHED).frame_count == num_frames(seconds, rate)
    beyond = 1 / rate if ratio > 1 else -1 / rate
    with pytest.raises(UsageError, match="stretch video"):
        build_timeline(clip, ratio * clip.duration_seconds + beyond, rate, STRETCHED)
