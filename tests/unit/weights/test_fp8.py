"""Weights in fp8: how far rounding moves them, and that layers take the scale out again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentsync.weights import loader, random_init
from latentsync.weights.fp8 import FP8, FP8_SCALE, KEPT, CastingOperations, scaled_operations, to_fp8
from tests.support.tiny_networks import normal


@pytest.mark.parametrize("fan_in", [320, 2880, 11520, 23040])
def test_fp8_error_is_the_least_of_three_bits_at_each_size(fan_in: int) -> None:
    """The fan-ins of 1.5 and 1.6, whose weights are about as large as an even variance asks for."""
    weights = normal(1, 200_000) / fan_in**0.5
    error = (to_fp8(weights).float() / FP8_SCALE - weights).norm() / weights.norm()
    assert error < 0.027
    assert fan_in < 2880 or (weights.to(FP8).float() - weights).norm() / weights.norm() > 1.25 * error


def test_fp8_layers_take_the_scale_out() -> None:
    linear = scaled_operations(CastingOperations).Linear(64, 8)
    x, expected = normal(1, 5, 64), linear.forward(normal(1, 5, 64))
    linear.weight.data = to_fp8(linear.weight.data)
    torch.testing.assert_close(linear(x), expected, rtol=0, atol=0.1)  # 2.6 % of each of 64 products


def test_fp8_limits_what_does_not_fit() -> None:
    assert to_fp8(torch.tensor([-1e3, 1e3])).tolist() == [-448, 448]


def test_fp8_keeps_the_ends_of_the_unet() -> None:
    told = loader.Checkpoint(Path("unet"), dict(random_init.unet().state_dict()))
    unet = loader.load_unet(told, CastingOperations, FP8, norm_dtype=torch.float32)
    dtypes = {key: weight.dtype for key, weight in unet.state_dict().items() if weight.ndim in (2, 4)}
    assert all((dtype == torch.float32) == key.startswith(KEPT) for key, dtype in dtypes.items())
    assert {torch.float32, FP8} == set(dtypes.values())
    x, audio = normal(2, 1, 13, 2, 8, 8), normal(3, 1, 2, 50, 384)
    with torch.no_grad():
        whole, eighth = (net(x, 500, net.precompute_audio_kv(audio))[0] for net in (random_init.unet(), unet))
    assert 0 < (whole - eighth).norm() < 0.2 * whole.norm()
