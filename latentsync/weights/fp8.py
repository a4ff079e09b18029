"""Weights in fp8 (e4m3), scaled by a constant to the range of normal e4m3 numbers.

Weights of the UNet have a standard deviation of 0.007 to 0.06, and the smallest normal number of e4m3 is 0.016. Without
the scale, rounding changes such weights by 5 % on average. With the scale, rounding changes such weights by 2.6 %, the
best possible value with three mantissa bits.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..models.protocols import Operations

FP8 = torch.float8_e4m3fn
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32, "fp8": FP8}
"""Name that users choose -> dtype of the UNet's weights."""
FP8_SCALE = 16.0  # a power of two, so that the division of the input is exact
KEPT = ("conv_in.", "conv_out.", "time_embedding.")  # not in fp8: a thousandth of the weights, which affect all values


def to_fp8(tensor: Tensor) -> Tensor:
    """Scale weights and convert them to fp8. The layers of `scaled_operations` remove the scale."""
    limit = torch.finfo(FP8).max  # beyond it the cast gives NaN
    return (tensor.float() * FP8_SCALE).clamp(-limit, limit).to(FP8)


def scaled_operations(operations: Operations) -> Operations:
    """Layers that divide their input by FP8_SCALE if their weights are in fp8.

    Args:
        operations: layers that cast their weights to the dtype of the input, such as ComfyUI's.
    """

    class Linear(operations.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
            return super().forward(_unscaled(input, self.weight))

    class Conv2d(operations.Conv2d):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return super().forward(_unscaled(input, self.weight))

    layers = SimpleNamespace(
        Linear=Linear, Conv2d=Conv2d, GroupNorm=operations.GroupNorm, LayerNorm=operations.LayerNorm
    )
    return cast("Operations", layers)


class CastingOperations:
    """Layers that cast their weights to the dtype of the input, like ComfyUI's layers."""

    GroupNorm, LayerNorm = nn.GroupNorm, nn.LayerNorm

    class Linear(nn.Linear):
        @override
        def forward(self, input: Tensor) -> Tensor:
            return nn.functional.linear(input, self.weight.to(input), self.bias)

    class Conv2d(nn.Conv2d):
        @override
        def forward(self, input: Tensor) -> Tensor:
            return self._conv_forward(input, self.weight.to(input), self.bias)


def _unscaled(x: Tensor, weight: Tensor) -> Tensor:
    return x / FP8_SCALE if weight.dtype == FP8 else x
