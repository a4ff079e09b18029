"""Whisper's encoder: the hidden states equal those inside its own forward pass."""

from __future__ import annotations

import torch

from latentsync.weights import random_init
from tests.support import tiny_networks


def test_whisper_hidden_states_end_as_its_forward() -> None:
    encoder = random_init.whisper()
    mel = tiny_networks.normal(1, 1, 80, 3000)
    with torch.no_grad():
        hidden_states = encoder(mel)
        expected = encoder.encoder(mel)
        output = encoder.encoder.ln_post(hidden_states[:, :, -1])
    assert hidden_states.shape == (1, 1500, 5, 384)
    # the same operations, in another memory layout
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_whisper_half_precision_stays_half_precision() -> None:
    with torch.no_grad():
        hidden_states = random_init.whisper()(tiny_networks.normal(1, 1, 80, 3000).bfloat16())
    assert hidden_states.dtype == torch.bfloat16
    assert hidden_states.isfinite().all()
