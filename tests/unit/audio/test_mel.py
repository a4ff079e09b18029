"""The mel spectrogram in blocks equals that of the whole."""

from __future__ import annotations

import pytest
import torch
from whisper.audio import log_mel_spectrogram

from latentsync.audio import mel
from tests.support import tiny_networks


@pytest.mark.parametrize("count", [640, 16_001, 963_333])
@pytest.mark.parametrize("piece", [1379, 1 << 22])
def test_mel_blocks_equal_whisper_spectrogram(count: int, piece: int) -> None:
    samples = tiny_networks.normal(count, count)
    power = torch.cat(list(mel.mel_power(samples.split(piece))), dim=1)
    expected = log_mel_spectrogram(samples)
    # other shapes of the same product: a unit or two in the last place of a float32
    torch.testing.assert_close(mel.log_mel(power, mel.log_peak(power)), expected, atol=5e-7, rtol=0)


def test_mel_of_digital_silence_is_the_floor() -> None:
    assert mel.log_mel(torch.zeros(80, 3), 1.0).unique().tolist() == [(1.0 - 8 + 4) / 4]


def test_mel_blocks_have_requested_size() -> None:
    columns = torch.arange(10.0)[None]
    given = list(mel.blocks(columns.split([1, 7, 2], dim=1), 4))
    assert [block.shape[1] for block in given] == [4, 4, 2]
    assert torch.equal(torch.cat(given, dim=1), columns)
