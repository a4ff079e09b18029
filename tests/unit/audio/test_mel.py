"""Any part of the spectrogram equals Whisper's spectrogram of the whole recording."""

from __future__ import annotations

import pytest
import torch
from whisper.audio import log_mel_spectrogram

from latentsync.audio import mel
from tests.support import tiny_networks


@pytest.mark.parametrize("count", [640, 16_001, 963_333])
@pytest.mark.parametrize("block", [7, 3000, 1 << 22])
def test_mel_blocks_equal_whisper_spectrogram(count: int, block: int) -> None:
    samples = tiny_networks.normal(count, count)
    total = mel.num_mels(samples)
    starts = [*range(0, total, block)]
    starts = [*starts[:4], *starts[-3:]]  # the middle is like the others
    expected = log_mel_spectrogram(samples)
    peak = mel.log_peak(mel.mel_power(samples))
    assert expected.shape == (80, total)
    for start in starts:
        stop = min(start + block, total)
        # other shapes of the same product: a unit or two in the last place of a float32
        torch.testing.assert_close(
            mel.log_mel(mel.mel_power(samples, start, stop), peak), expected[:, start:stop], atol=5e-7, rtol=0
        )


def test_mel_of_digital_silence_is_the_floor() -> None:
    assert mel.log_mel(torch.zeros(80, 3), 1.0).unique().tolist() == [(1.0 - 8 + 4) / 4]
