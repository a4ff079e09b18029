"""Weights in fp8 (e4m3): scaled by a constant, so that they lie within its normal numbers.

Weights of the UNet have a standard deviation of 0.007 to 0.06, and the smallest normal number of e4m3 is 0.016.
Rounding changes weights of such sizes by 5 % in the mean as they are, and by 2.6 % if they are scaled: the most that
three bits allow.
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
"""Dtypes of the UNet's weights, by the names that users choose."""
FP8_SCALE = 16.0  # a power of two: the division of the input is exact
KEPT = ("conv_in.", "conv_out.", "time_embedding.")  # a thousandth of the weights, and every value passes them


def to_fp8(tensor: Tensor) -> Tensor:
    """The scaled weights. Layers of `scaled_operations` take the scale out again."""
    limit = torch.finfo(FP8).max  # beyond it the cast gives NaN
    return (tensor.float() * FP8_SCALE).clamp(-limit, limit).to(FP8)


def scaled_operations(operations: Operations) -> Operations:
    """Layers that divide their input by the scale of their weights if these are in fp8.

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
    """Layers that cast their weights to the dtype of the input, as ComfyUI's do."""

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
