"""Any part of the MFCC and of the log-mel spectrogram equals that part of the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from latentsync.scoring import mfcc, wav2lip_mel
from tests.support.procedural import speech

Columns = Callable[..., np.ndarray]
KINDS = [
    pytest.param(mfcc.mfcc, mfcc.num_columns, id="mfcc"),
    pytest.param(wav2lip_mel.log_mel, wav2lip_mel.num_columns, id="mel"),
]


@pytest.mark.parametrize(("columns", "count"), KINDS)
def test_features_parts_equal_the_whole(columns: Columns, count: Callable[[int], int]) -> None:
    samples = speech(1.013)
    whole = columns(samples)
    assert whole.shape[1] == count(len(samples))
    for start, stop in [(0, 7), (3, 40), (70, whole.shape[1])]:
        np.testing.assert_array_equal(columns(samples, start, stop), whole[:, start:stop])


@pytest.mark.parametrize(("columns", "count"), KINDS)
@pytest.mark.parametrize("length", [1, 399, 640])
def test_features_of_short_and_silent_sound(columns: Columns, count: Callable[[int], int], length: int) -> None:
    silent = columns(np.zeros(length))
    assert silent.shape[1] == count(length)
    assert np.isfinite(silent).all()


def test_mel_is_silent_outside_of_the_recording() -> None:
    samples = speech(0.5)
    beyond = wav2lip_mel.log_mel(samples, -20, 90)
    assert (beyond[:, :15] == -4).all()
    assert (beyond[:, 65:] == -4).all()
    np.testing.assert_array_equal(beyond[:, 20:55], wav2lip_mel.log_mel(samples, 0, 35))
