"""Whisper's encoder: its hidden states are those of its own forward pass."""

from __future__ import annotations

import torch

from latentsync.weights import random_init
from tests.support import tiny_networks


def test_whisper_hidden_states_end_as_its_forward() -> None:
    encoder = random_init.whisper()
    mel = tiny_networks.normal(1, 1, 80, 3000)
    with torch.no_grad():
        states = encoder(mel)
        own = encoder.encoder(mel)
        closed = encoder.encoder.ln_post(states[:, :, -1])
    assert states.shape == (1, 1500, 5, 384)
    # the same operations, in another memory layout
    torch.testing.assert_close(closed, own, atol=1e-4, rtol=1e-4)


def test_whisper_half_precision_stays_half_precision() -> None:
    with torch.no_grad():
        states = random_init.whisper()(tiny_networks.normal(1, 1, 80, 3000).bfloat16())
    assert states.dtype == torch.bfloat16
    assert states.isfinite().all()
